"""Where each stage reads and writes below one `MODEL_DIR`; docs/contract.md describes the files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

FULL = "full"
CONFIG = "config.gin"
"""Of a run, and of each of its stages."""
OF_A_RUNG = ("quantize", "generate", "match")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The folders of one run.

    `prepare`, `encode`, `features`, `relevance` and `report` are shared by all rungs of the
    ablation ladder; `quantize`, `generate` and `match` belong to one rung. The full model's lie in
    `MODEL_DIR` itself, those of any other rung below `MODEL_DIR/ablation/RUNG`. The other half of a
    cross-fit is laid out likewise in `MODEL_DIR/exchanged`.

    Attributes:
      model_dir: of the run.
      rung: of the ablation ladder.
      is_exchanged: whether it is the other half of a cross-fit.
      successor: name of a stage that is made again, beside what it made before; see `succeeding`.
    """

    model_dir: Path
    rung: str = FULL
    is_exchanged: bool = False
    successor: str | None = None

    def for_rung(self, rung: str) -> Layout:
        return dataclasses.replace(self, rung=rung, successor=None)

    def exchanged(self) -> Layout:
        return dataclasses.replace(self, is_exchanged=True, successor=None)

    def succeeding(self, name: str) -> Layout:
        """The same run, but that the folder of one stage is where it is made again."""
        return dataclasses.replace(self, successor=name)

    def stage(self, name: str) -> Path:
        folder = self.model_dir / "successors" if name == self.successor else self.model_dir
        if self.is_exchanged:
            folder = folder / "exchanged"
        own_sids = name in OF_A_RUNG and self.rung != FULL
        return folder / "ablation" / self.rung / name if own_sids else folder / name

    @property
    def config(self) -> Path:
        """What the finished stages ran with."""
        return self.model_dir / CONFIG

    @property
    def locks(self) -> Path:
        return self.model_dir / "locks"

    @property
    def replaced(self) -> Path:
        return self.model_dir / "replaced"

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
    def supervised_generator(self) -> Path:
        """The generator before its alignment."""
        return self.stage("generate") / "supervised.safetensors"

    @property
    def alignment(self) -> Path:
        """Checkpoints and logs of the alignment."""
        return self.stage("generate") / "alignment"

    @property
    def alignment_result(self) -> Path:
        return self.stage("generate") / "alignment.json"

    @property
    def generator_vocabulary(self) -> Path:
        """The generator's own, a folder; where there is none it reads `vocabulary`."""
        return self.stage("generate") / "vocabulary"

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
        return Layout(model_dir=folder, rung=self.rung)

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
        return self.stage("ablate") / CONFIG

    @property
    def scores(self) -> Path:
        return self.stage("score") / "scores.parquet"

    @property
    def asked_features(self) -> Path:
        """The features of the pairs that were scored."""
        return self.stage("score") / "features.parquet"

    @property
    def asked_letor(self) -> Path:
        """The folder of the same as LETOR text."""
        return self.stage("score") / "letor"

    @property
    def bundle(self) -> Path:
        return self.stage("export") / "bundle"

    @property
    def report(self) -> Path:
        return self.stage("report") / "index.html"
