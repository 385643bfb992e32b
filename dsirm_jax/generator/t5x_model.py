"""The generator under T5X: `t5x.train`, `t5x.eval` and `t5x.infer` run this package's own model.

Module, loss, constraint and search are those of `architectures.t5`, `losses`, `decoding` and
`train`; here is only what T5X needs around them: its model protocol, its feature converter, tasks
of its inference and evaluation, and its checkpoints. Nothing else in the package imports this
module, and importing it needs T5X (see docs/t5x.md). The run files are in `gin/t5x/`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, Float, Int

from dsirm_jax.data import task_texts, tasks
from dsirm_jax.devices.precision import exact
from dsirm_jax.generator.architectures.architecture import param_shapes
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.architectures.t5_stacks import START, Transformer
from dsirm_jax.generator.decoding import beam_search
from dsirm_jax.generator.losses import GeneratorObjective, level_log_probs
from dsirm_jax.generator.train import batch_loss, teacher_forced
from dsirm_jax.io.errors import InputError
from dsirm_jax.sids import codes, trie
from dsirm_jax.training.checkpoints import step_damage

REPOSITORIES = {
    "google-research/t5x": "cc342d419ec3e3e9c4bf1df33c82330cafdc1e16",
    "google/airio": "69897df7d9a427b947a9f7bb4164c7782b43e601",
    "google-research/jestimator": "326824a477feef6d92e6f44175000907a72899ca",
}
"""What is not on PyPI, or not in a version that works, and the commits known to."""
INSTALL = "pip install '.[t5x]'; pip install --no-deps " + " ".join(
    f"git+https://github.com/{name}@{commit}" for name, commit in REPOSITORIES.items()
)

try:
    import seqio
    import tensorflow as tf
    from t5x import metrics, models
except (ImportError, AttributeError) as error:  # an old jestimator has the latter
    raise InputError(f"T5X cannot be imported ({error}); install it with: {INSTALL}") from error

INFER = "infer"
CHECKPOINT = "checkpoint"
WEIGHT = "weight"


class SidFeatureConverter(seqio.EncDecFeatureConverter):
    """Rows of text -> SID tasks to features of the model; a row's `weight` is that of its loss.

    The lengths are those of `inputs` and `targets`. Rows without a weight count 1. Nothing is
    packed: the targets all have one length.
    """

    MODEL_FEATURES = seqio.EncDecFeatureConverter.MODEL_FEATURES | {
        "decoder_loss_weights": seqio.FeatureConverter.FeatureSpec(dtype=tf.float32)
    }

    def __init__(self, pack: bool = False, **kwargs: Any):
        """Takes SeqIO's arguments."""
        if pack:
            raise InputError("SIDs are not packed; bind utils.DatasetConfig.pack = False")
        super().__init__(pack=pack, **kwargs)

    def _convert_example(self, features: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        converted = dict(super()._convert_example(features))
        weight = features.get(WEIGHT, tf.ones((), tf.float32))
        converted["decoder_loss_weights"] = tf.fill(tf.shape(features["targets"]), weight)
        return converted


class SidGenerator(models.BaseTransformerModel):
    """The generator as a model of T5X.

    The loss of a batch is that of `train.make_generator_loss`, a weighted mean. So bind no
    `Trainer.num_microbatches`, of which T5X adds up the losses.
    """

    FEATURE_CONVERTER_CLS = SidFeatureConverter

    def __init__(
        self,
        *,
        config: T5Config,
        vocabulary: str | os.PathLike[str],
        sids: Int[np.ndarray, "item level"],
        sizes: Sequence[int],
        optimizer_def: Any,
        objective: GeneratorObjective,
        beams: int = 10,
        return_all_decodes: bool = False,
    ):
        """Builds the trie of the SIDs.

        Args:
          config: shape of the generator; vocabulary and SIDs give it `text_vocab_size` and
            `sid_sizes`.
          vocabulary: the SentencePiece model.
          sids: codes of all items; what is decoded is one of these.
          sizes: codes per level.
          optimizer_def: T5X's optimizer.
          objective: what is minimised beside the negative log-probability of the SIDs.
          beams: width of the search; all SIDs are found where there are fewer.
          return_all_decodes: predictions are all beams, in T5X's order: the best is the last.

        Raises:
          InputError: no SIDs, or a code outside its level.
        """
        features = task_texts.text_sid_features(vocabulary, sizes)
        super().__init__(
            module=Transformer(
                config.fitted_to(
                    text_vocab_size=features["inputs"].vocabulary.vocab_size, sid_sizes=sizes
                )
            ),
            input_vocabulary=features["inputs"].vocabulary,
            output_vocabulary=features["targets"].vocabulary,
            optimizer_def=optimizer_def,
        )
        self._trie = trie.build(sids, sizes=sizes)
        _, self._existing = trie.leaf_range(self._trie, ())
        self._beams = beams
        self._objective = objective
        self._return_all_decodes = return_all_decodes

    @property
    def config(self) -> T5Config:
        """The shape of the generator, vocabulary and SIDs included."""
        return self.module.config

    def get_initial_variables(
        self,
        rng: jax.Array,
        input_shapes: Mapping[str, Sequence[int]],
        input_types: Mapping[str, Any] | None = None,
    ) -> flax.core.FrozenDict:
        """Returns fresh parameters, and the names of their axes."""
        del input_types  # all features that the module sees are int32
        levels = input_shapes["decoder_input_tokens"][-1]
        if levels != len(self.config.sid_sizes):
            raise InputError(
                f"TASK_FEATURE_LENGTHS['targets'] is {levels}, but the SIDs have "
                f"{len(self.config.sid_sizes)} levels; bind it to that"
            )
        text = jnp.ones((1, 1), jnp.int32)
        sids = jnp.full((1, 1, levels), START, jnp.int32)
        return flax.core.freeze(self.module.init(rng, text, sids))

    def loss_fn(
        self, params: Any, batch: Mapping[str, jax.Array], dropout_rng: jax.Array | None
    ) -> tuple[Float[Array, ""], models.MetricsMap]:
        """Returns the loss, see `train.batch_loss`, and what T5X logs."""
        loss, per_level = batch_loss(
            params, batch, config=self.config, objective=self._objective, key=dropout_rng
        )
        means = {"loss": loss}
        means |= {f"loss_level_{level}": value for level, value in enumerate(per_level, start=1)}
        rows = jnp.asarray(len(batch["encoder_input_tokens"]))
        return loss, {
            **{name: metrics.AveragePerStep(total=value) for name, value in means.items()},
            "timing/seconds": metrics.Time(),
            "timing/seqs": metrics.Sum(rows),
            "timing/seqs_per_second": metrics.TimeRate.from_model_output(numerator=rows),
            "timing/steps_per_second": metrics.StepsPerTime.from_model_output(),
        }

    def _compute_logits(
        self,
        params: Any,
        batch: Mapping[str, jax.Array],
        dropout_rng: jax.Array | None = None,
    ) -> tuple[Float[Array, "batch _code"], ...]:
        """Returns the logits of every level, teacher-forced."""
        logits, _ = teacher_forced(params, batch, config=self.config, key=dropout_rng)
        return tuple(level[:, 0] for level in logits)

    @exact
    def score_batch(
        self,
        params: Any,
        batch: Mapping[str, jax.Array],
        return_intermediates: bool = False,
    ) -> Float[Array, " batch"]:
        """Returns `log P(target SID | text)`, nats, whatever the weights of the rows."""
        if return_intermediates:
            raise NotImplementedError("the generator keeps no intermediate values")
        logits, sids = teacher_forced(params, batch, config=self.config)
        return jnp.sum(level_log_probs(logits, sids), axis=-1)[:, 0]

    def predict_batch_with_aux(
        self,
        params: Any,
        batch: Mapping[str, jax.Array],
        rng: jax.Array | None = None,
        return_all_decodes: bool | None = None,
        num_decodes: int | None = None,
    ) -> tuple[Int[Array, "batch *beam level"], dict[str, Float[Array, "batch *beam"]]]:
        """Returns the SIDs that the constrained search finds, as tokens, and their scores.

        Args:
          params: parameters.
          batch: `encoder_input_tokens`.
          rng: T5X gives one; the search draws nothing.
          return_all_decodes: see `__init__`, which it stands in for.
          num_decodes: likewise for `beams`.

        Returns:
          Tokens int32 `[batch, level]`, of which `sids.codes.from_tokens` makes codes, and
          `scores`, float32 `[batch]`, `log P(SID | text)`; with all decodes `[batch, beam, level]`
          and `[batch, beam]`.
        """
        del rng
        everything = self._return_all_decodes if return_all_decodes is None else return_all_decodes
        config = self.config.unscanned()
        best = beam_search(
            self.config.unstacked(params),
            self._trie,
            batch["encoder_input_tokens"],
            config=config,
            beams=min(num_decodes or self._beams, self._existing),
        )
        tokens = jnp.asarray(
            codes.to_tokens(
                best.sids, sizes=config.sid_sizes, text_vocab_size=config.text_vocab_size
            )
        )
        if everything:
            return tokens[:, ::-1], {"scores": best.log_probs[:, ::-1]}
        return tokens[:, 0], {"scores": best.log_probs[:, 0]}


def existing_sids(path: str | os.PathLike[str]) -> Int[np.ndarray, "item level"]:
    """Returns the codes in a `sids.parquet`, int32, in its order.

    Raises:
      InputError: there is no such file, or it holds no SIDs.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such table of SIDs; bind SIDS to a run's sids.parquet")
    return codes.read_sids(Path(path)).sids


def query_task(
    *, path: str | os.PathLike[str], vocabulary: str | os.PathLike[str], sizes: Sequence[int]
) -> seqio.Task:
    """Returns the task of bare queries, to infer SIDs of; its one split is `INFER`.

    Args:
      path: a text file, one query a line, cleaned as `queries.parquet` has them.
      vocabulary: the SentencePiece model.
      sizes: codes per level.

    Raises:
      InputError: there is no such file.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; bind QUERIES to a text with a query a line")

    def without_targets(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return row | {"targets": tf.zeros(len(sizes), tf.int32), WEIGHT: tf.ones((), tf.float32)}

    return seqio.Task(
        "queries",
        source=seqio.TextLineDataSource({INFER: os.fspath(path)}),
        preprocessors=[
            lambda lines: lines.map(lambda line: {"inputs": line}),
            seqio.preprocessors.tokenize,
            lambda rows: rows.map(without_targets),
        ],
        output_features=task_texts.text_sid_features(vocabulary, sizes),
    )


def evaluation(
    *,
    tfds_dir: str | os.PathLike[str],
    vocabulary: str | os.PathLike[str],
    sids: Int[np.ndarray, "item level"],
    sizes: Sequence[int],
) -> seqio.Task:
    """Returns the task that measures `prefix_accuracy` on relevant pairs; see `tasks.query_sid`."""
    task = tasks.query_sid(tfds_dir=tfds_dir, vocabulary=vocabulary, sids=sids, sizes=sizes)
    # SeqIO's evaluator measures the lengths of all features, and a weight has none.
    features = {name: task.output_features[name] for name in SidFeatureConverter.TASK_FEATURES}
    return seqio.Task(
        "query_sid",
        source=task.source,
        preprocessors=[lambda rows: rows.filter(lambda row: row["relevant"]), *task.preprocessors],
        output_features=features,
        metric_fns=[prefix_accuracy],
    )


def registered(task: seqio.Task | seqio.Mixture) -> str:
    """Registers a task in place of any of its name, and returns the name.

    T5X's check of vocabularies and SeqIO's evaluator take nothing else.
    """
    is_mixture = isinstance(task, seqio.Mixture)
    registry = seqio.MixtureRegistry if is_mixture else seqio.TaskRegistry
    if task.name in registry.names():
        registry.remove(task.name)
    registry.add_provider(task.name, task)
    return task.name


def prefix_accuracy(
    targets: Sequence[Sequence[int]], predictions: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Returns the share of rows whose prediction has the first level of the target, two, and so on.

    Args:
      targets: tokens of a SID per row.
      predictions: likewise.
    """
    same = np.equal(np.asarray(targets), np.asarray(predictions))  # [row, level]
    shares = np.logical_and.accumulate(same, axis=1).mean(axis=0)
    return {f"prefix_{depth}": float(share) for depth, share in enumerate(shares, start=1)}


def export_checkpoint(step: str | os.PathLike[str], *, directory: str | os.PathLike[str]) -> Path:
    """Writes the parameters of a checkpoint of `training.checkpoints` as one of T5X.

    It has no state of an optimizer; `gin/t5x/start.gin` trains on from it with a fresh one.

    Args:
      step: the checkpoint, `generate/checkpoints/STEP`.
      directory: where `checkpoint_STEP` goes.

    Returns:
      The path of the new checkpoint.

    Raises:
      InputError: the checkpoint is damaged or missing, or the new one exists.
    """
    step, directory = Path(step).absolute(), Path(directory).absolute()
    if reason := step_damage(step):
        raise InputError(f"{step}: no good checkpoint ({reason}); give the one before it")
    path = directory / f"{CHECKPOINT}_{step.name}"
    if path.exists():
        raise InputError(f"{path} exists; name another directory")
    state = _read(step / "default", ("params", "step"))
    written = {"target": state["params"], "state": {"step": state["step"]}}
    options = ocp.CheckpointManagerOptions(step_prefix=CHECKPOINT)
    with ocp.CheckpointManager(directory, options=options) as opened:
        opened.save(int(step.name), args=ocp.args.Composite(state=ocp.args.PyTreeSave(written)))
    return path


def import_checkpoint(path: str | os.PathLike[str], *, config: T5Config) -> dict:
    """Returns the parameters in a checkpoint of `t5x.train`, to predict with or to train on from.

    Args:
      path: `checkpoint_STEP`, written with Orbax, as is T5X's default.
      config: shape of the generator, with its `text_vocab_size` and `sid_sizes`.

    Raises:
      InputError: there is no such checkpoint, or it is of a model of another shape.
    """
    params = _read(Path(path).absolute() / "state", ("target",))["target"]
    if jax.tree.map(np.shape, params) != jax.tree.map(np.shape, param_shapes(config)):
        raise InputError(f"{path}: not of a model of this shape; bind the T5Config it was made by")
    return params


def _read(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Returns some entries of what Orbax saved, as NumPy arrays; the others are not read."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        try:
            saved = checkpointer.metadata(path).item_metadata.tree
            entries = {name: saved[name] for name in names}
        except (AttributeError, KeyError, OSError, ValueError) as error:
            raise InputError(f"{path}: no checkpoint of a generator; give its folder") from error
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), entries)
        return checkpointer.restore(
            path,
            ocp.args.PyTreeRestore(item=entries, restore_args=as_numpy, partial_restore=True),
        )
