"""Where each stage reads and writes below one `MODEL_DIR`; docs/contract.md describes the files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

FULL = "full"
OF_A_RUNG = ("quantize", "generate", "match")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The folders of one run.

    `prepare`, `encode`, `features`, `relevance` and `report` are shared by all rungs of the
    ablation ladder; `quantize`, `generate` and `match` belong to one rung. The full model's lie in
    `MODEL_DIR` itself, those of any other rung below `MODEL_DIR/ablation/RUNG`. The other half of a
    cross-fit is laid out likewise in `MODEL_DIR/exchanged`.
    """

    model_dir: Path
    rung: str = FULL

    def for_rung(self, rung: str) -> Layout:
        return dataclasses.replace(self, rung=rung)

    def exchanged(self) -> Layout:
        return dataclasses.replace(self, model_dir=self.model_dir / "exchanged")

    def stage(self, name: str) -> Path:
        own_sids = name in OF_A_RUNG and self.rung != FULL
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
    def features(self) -> Path:
        return self.stage("features") / "features.parquet"

    @property
    def surroundings(self) -> Path:
        return self.stage("features") / "surroundings.safetensors"

    @property
    def sid_features(self) -> Path:
        return self.stage("match") / "features.parquet"

    @property
    def predictions(self) -> Path:
        return self.stage("relevance") / "predictions.parquet"

    @property
    def metrics(self) -> Path:
        return self.stage("relevance") / "metrics.json"

    def fold(self, *, seed: int, number: int, of: int) -> Layout:
        """The run of one fold of the ladder."""
        folder = self.model_dir / "folds" / f"seed-{seed}-fold-{number}-of-{of}"
        return dataclasses.replace(self, model_dir=folder)

    @property
    def compiled(self) -> Path:
        return self.model_dir / "folds" / "compiled"

    @property
    def ladder(self) -> Path:
        return self.stage("ablate") / "ablation.json"

    @property
    def ladder_predictions(self) -> Path:
        return self.stage("ablate") / "predictions.parquet"

    @property
    def ladder_plot(self) -> Path:
        return self.stage("ablate") / "lifts.svg"

    @property
    def ladder_config(self) -> Path:
        return self.stage("ablate") / "config.gin"

    @property
    def scores(self) -> Path:
        return self.stage("score") / "scores.parquet"

    @property
    def bundle(self) -> Path:
        return self.stage("export") / "bundle"

    @property
    def report(self) -> Path:
        return self.stage("report") / "index.html"
