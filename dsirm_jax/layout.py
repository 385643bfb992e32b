"""Where each stage reads and writes below one `MODEL_DIR`; docs/contract.md describes the files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

FULL = "full"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The folders of one run.

    `prepare`, `encode`, `relevance` and `report` are shared by all rungs of the ablation ladder;
    `quantize` and `generate` belong to one rung. The full model's lie in `MODEL_DIR` itself,
    those of any other rung below `MODEL_DIR/ablation/RUNG`.
    """

    model_dir: Path
    rung: str = FULL

    def for_rung(self, rung: str) -> Layout:
        return dataclasses.replace(self, rung=rung)

    def stage(self, name: str) -> Path:
        own_sids = name in ("quantize", "generate") and self.rung != FULL
        return self.model_dir / "ablation" / self.rung / name if own_sids else self.model_dir / name

    @property
    def config(self) -> Path:
        return self.model_dir / "config.gin"

    @property
    def items(self) -> Path:
        return self.stage("prepare") / "items.parquet"

    @property
    def queries(self) -> Path:
        return self.stage("prepare") / "queries.parquet"

    @property
    def judgements(self) -> Path:
        return self.stage("prepare") / "judgements.parquet"

    @property
    def vocabulary(self) -> Path:
        return self.stage("prepare") / "vocabulary.model"

    @property
    def tfds(self) -> Path:
        return self.stage("prepare") / "tfds"

    @property
    def item_vectors(self) -> Path:
        """Pattern of the shards; `vectors.shard` fills it in."""
        return self.stage("encode") / "items-*.parquet"

    @property
    def query_vectors(self) -> Path:
        """Pattern of the shards, likewise."""
        return self.stage("encode") / "queries-*.parquet"

    @property
    def quantizer(self) -> Path:
        return self.stage("quantize") / "quantizer.safetensors"

    @property
    def sids(self) -> Path:
        return self.stage("quantize") / "sids.parquet"

    @property
    def sid_shards(self) -> Path:
        """Pattern of the shards that are joined in the end, likewise."""
        return self.stage("quantize") / "sids-*.parquet"

    @property
    def health(self) -> Path:
        return self.stage("quantize") / "health.json"

    @property
    def assigned(self) -> Path:
        return self.stage("assign") / "sids.parquet"

    @property
    def generator(self) -> Path:
        return self.stage("generate") / "generator.safetensors"

    @property
    def query_sids(self) -> Path:
        return self.stage("generate") / "query_sids.parquet"

    @property
    def query_sid_shards(self) -> Path:
        """Pattern of the shards that are joined in the end, likewise."""
        return self.stage("generate") / "query_sids-*.parquet"

    @property
    def hits(self) -> Path:
        return self.stage("generate") / "hits.parquet"

    @property
    def predicted(self) -> Path:
        return self.stage("predict") / "query_sids.parquet"

    @property
    def pair_log_probs(self) -> Path:
        return self.stage("generate") / "pair_log_probs.parquet"

    def head(self, rung: str) -> Path:
        """The relevance head of a rung."""
        return self.stage("relevance") / rung / "head.safetensors"

    @property
    def predictions(self) -> Path:
        return self.stage("relevance") / "predictions.parquet"

    @property
    def metrics(self) -> Path:
        return self.stage("relevance") / "metrics.json"

    @property
    def report(self) -> Path:
        return self.stage("report") / "index.html"
