"""Fits one generator to arrays and asks it for SIDs: a part of `benchmarks/language_model.py`."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from lines import line

from dsirm_jax.data.vocabulary import PAD
from dsirm_jax.generator.architectures.architecture import Architecture, init_params
from dsirm_jax.generator.architectures.decoder_only import DecoderConfig
from dsirm_jax.generator.architectures.decoder_weights import read_text_model, with_sid_arrays
from dsirm_jax.generator.architectures.t5_weights import T5Model
from dsirm_jax.generator.architectures.tensors import hugging_face_weights
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.losses import GeneratorObjective
from dsirm_jax.generator.predict import predict_sids
from dsirm_jax.generator.train import (
    batch_loss,
    generator_state_shapes,
    generator_state_shardings,
    make_step,
)
from dsirm_jax.metrics.retrieval import HITS_AT, first_hits
from dsirm_jax.sids import trie
from dsirm_jax.sids.codes import to_tokens
from dsirm_jax.training.batches import index_batches
from dsirm_jax.training.loop import TrainState
from dsirm_jax.training.meshes import data_mesh
from dsirm_jax.training.settings import Training, make_optimizer

if TYPE_CHECKING:
    from device_sizes import Sizes

Batch = dict[str, np.ndarray]
HELD_OUT = 0.1
TITLE_RATE = 0.5
"""Share of rows that are titles, once queries are learnt."""
CHECKS = 20
"""Times at which the loss of queries held out is measured."""
SEARCHED = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What is learnt and asked.

    Attributes:
      sids: of all items.
      sizes: codes a level.
      train: query and item of each pair that is learnt.
      weight: of each.
      test: query and item of each relevant pair of test queries.
      identity: of every query; those of one are held out together.
      queries: their pieces, padded.
      items: likewise.
      rows: of a pretrained embedding, those of the pieces.
      marks: pieces before and behind each text that are no part of it.
    """

    sids: np.ndarray
    sizes: tuple[int, ...]
    train: np.ndarray
    weight: np.ndarray
    test: np.ndarray
    identity: np.ndarray
    queries: np.ndarray
    items: np.ndarray
    rows: np.ndarray
    marks: tuple[int, ...]

    @classmethod
    def read(cls, folder: Path, *, vocabulary: str) -> Task:
        """Reads what `language_model_data.py` wrote.

        Args:
          folder: of a run's arrays.
          vocabulary: name of a tokenizer.
        """
        found = {}
        for name in ("data", vocabulary):
            with np.load(folder / f"{name}.npz") as arrays:
                found |= dict(arrays)
        found |= {name: tuple(found[name].tolist()) for name in ("sizes", "marks")}
        return cls(**{field.name: found[field.name] for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Course:
    """How long and how fast a generator learns.

    Attributes:
      learning_rate: the highest.
      title_epochs: passes over the items' texts before queries are learnt.
      query_epochs: passes over the training pairs, with as many titles among them.
      snippets: share of the titles' rows that read but a few pieces of one, as long as queries are.
      optimizer: see `Training.optimizer`.
    """

    learning_rate: float
    title_epochs: float
    query_epochs: float
    snippets: float = 0.0
    optimizer: str = "adamw"


def worth(
    sizes: Sizes,
    *,
    folder: Path,
    vocabulary: str,
    shape: Architecture | Path,
    course: Course,
    seed: int,
    rows: int | None,
    seconds: float,
    ranks: Path,
) -> Iterator[dict]:
    """Fits a generator, searches for the SIDs of test queries and writes their ranks.

    Args:
      sizes: see `device_sizes`.
      folder: of a run's arrays.
      vocabulary: name of the tokenizer.
      shape: what is fitted from scratch, or the Hugging Face folder of what is started from.
      course: how.
      seed: of all that is drawn.
      rows: of a step; what `sizes` say when None.
      seconds: after which training ends, wherever it is.
      ranks: file of `queries` and `ranks`, see `first_hits`.
    """
    task, rows = Task.read(folder, vocabulary=vocabulary), rows or sizes.fitted_rows
    config, params = started(shape, task, seed=seed)
    is_cpu = jax.default_backend() == "cpu"
    config = dataclasses.replace(config, dtype="float32" if is_cpu else "bfloat16")
    count = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
    begun = time.perf_counter()
    params, found = fitted_params(
        config, params, task, course=course, rows=rows, seed=seed, seconds=seconds
    )
    name, took = ranks.stem, time.perf_counter() - begun
    yield line(f"{name}/parameters", count, None, "million", ratio=None)
    yield line(f"{name}/training", took, seconds, "s", ratio=seconds / took)
    yield line(f"{name}/loss held out", found["loss"], None, "nats", ratio=None)
    yield line(f"{name}/steps", found["last"], found["steps"], "steps", ratio=None)
    yield line(f"{name}/best step", found["step"], None, "step", ratio=None)
    fitted = FittedGenerator(
        config=config.unscanned(),
        params=config.unstacked(params),
        max_pieces=task.queries.shape[1],
        sid_version="",
    )
    asked, row = np.unique(task.test[:, 0], return_inverse=True)
    begun = time.perf_counter()
    beams = predict_sids(
        fitted=fitted,
        trie=trie.build(task.sids, sizes=task.sizes),
        pieces=[*task.queries[asked]],  # padded to one length, for one program
        beams=max(HITS_AT),
        batch_size=SEARCHED,
    )
    yield line(f"{name}/search", time.perf_counter() - begun, None, "s", ratio=None)
    hits = first_hits(
        np.asarray(beams.sids),
        np.asarray(beams.valid),
        query_index=row,
        relevant_sids=task.sids[task.test[:, 1]],
    )
    partial = ranks.with_suffix(".partial.npz")
    np.savez(partial, queries=asked, ranks=hits)
    partial.rename(ranks)


def started(shape: Architecture | Path, task: Task, *, seed: int) -> tuple[Architecture, Any]:
    """Returns a network with stacked layers, and its parameters before training."""
    target = {"text_vocab_size": len(task.rows), "sid_sizes": task.sizes}
    if not isinstance(shape, Path):
        config = dataclasses.replace(shape, scan_layers=True).fitted_to(**target)
        return config, init_params(config, seed=seed)
    if is_t5(shape):
        return _started_t5(shape, task, seed=seed, target=target)
    whole = DecoderConfig.of_folder(shape)
    text = read_text_model(shape, config=whole, tokens=whole.text_vocab_size)
    config = whole.fitted_to(**target)
    shapes = {path: shape for path, (shape, _) in config.parameters().items()}
    flat = with_sid_arrays(text, shapes=shapes, rows=task.rows, seed=seed)
    return config, traverse_util.unflatten_dict(flat, sep="/")


def is_t5(folder: Path) -> bool:
    """Returns whether a Hugging Face folder has a T5 of any version."""
    return "t5" in json.loads((folder / "config.json").read_text("utf-8"))["model_type"]


def _started_t5(
    folder: Path, task: Task, *, seed: int, target: Mapping[str, Any]
) -> tuple[Architecture, Any]:
    model = T5Model.of(hugging_face_weights(folder))
    config = dataclasses.replace(model.config, scan_layers=True).fitted_to(**target)
    with tempfile.TemporaryDirectory() as temporary:
        weights = model.write(Path(temporary), kept=task.rows)
        return config, config.pretrained(Path(temporary) / weights, seed=seed)


def fitted_params(
    config: Architecture,
    params: Any,
    task: Task,
    *,
    course: Course,
    rows: int,
    seed: int,
    seconds: float = math.inf,
) -> tuple[Any, dict[str, float]]:
    """Returns the parameters where the loss of queries held out was least.

    And that loss, the step after which it was, the last step, and the steps of the whole course.
    """
    held_out = held_out_pairs(task, seed=seed)
    learnt = ~held_out
    title_steps = math.ceil(course.title_epochs * len(task.items) / rows)
    query_rows = rows - round(TITLE_RATE * rows)
    query_steps = math.ceil(course.query_epochs * learnt.sum() / query_rows)
    steps = title_steps + query_steps
    training = Training(
        epochs=1,
        batch_size=rows,
        learning_rate=course.learning_rate,
        optimizer=course.optimizer,
    )
    optimizer = make_optimizer(training, num_steps=steps)
    mesh = data_mesh(jax.devices()[:1])
    places = generator_state_shardings(config, optimizer=optimizer, mesh=mesh)
    settings = {"objective": GeneratorObjective(), "optimizer": optimizer, "seed": seed}
    step = make_step(config, shardings=places, **settings)
    like = generator_state_shapes(config, optimizer=optimizer)
    state = TrainState(
        step=jnp.zeros((), like.step.dtype),
        params=jax.device_put(params, places.params),
        opt_state=jax.jit(optimizer.init, out_shardings=places.opt_state)(params),
    )

    @jax.jit
    def loss(params: Any, batch: Batch) -> jax.Array:
        return batch_loss(params, batch, config=config, objective=settings["objective"])[0]

    checked = list(whole_batches(task, np.flatnonzero(held_out), config=config, rows=rows))
    weights = [batch["decoder_loss_weights"].sum() for batch in checked]
    best, found = state.params, {"loss": math.inf, "step": 0, "last": 0, "steps": steps}
    feed = batches(
        task,
        np.flatnonzero(learnt),
        config=config,
        rows=rows,
        title_steps=title_steps,
        seed=seed,
        snippets=course.snippets,
    )
    every, begun = max(steps // CHECKS, 1), time.perf_counter()
    for number in range(1, steps + 1):
        state, metrics = step(state, next(feed))
        is_late = time.perf_counter() - begun > seconds
        if number % every and number != steps and not is_late:
            continue
        now = float(np.average([loss(state.params, batch) for batch in checked], weights=weights))
        print(
            f"step {number} of {steps}, {time.perf_counter() - begun:.0f} s: "
            f"loss {float(metrics['loss']):.3f}, held out {now:.3f}",
            file=sys.stderr,
            flush=True,
        )
        if now < found["loss"]:
            # On a CPU too the next step writes where these are.
            best = jax.tree.map(lambda array: np.array(array), state.params)
            found |= {"loss": now, "step": number}
        found["last"] = number
        if is_late:
            break
    return best, found


def held_out_pairs(task: Task, *, seed: int) -> np.ndarray:
    """Returns which training pairs are of queries held out, all of one identity together."""
    identities, number = np.unique(task.identity[task.train[:, 0]], return_inverse=True)
    random = np.random.Generator(np.random.Philox(key=seed))
    chosen = random.permutation(len(identities)) < max(HELD_OUT * len(identities), 1)
    return chosen[number]


def batches(
    task: Task,
    learnt: np.ndarray,
    *,
    config: Architecture,
    rows: int,
    title_steps: int,
    seed: int,
    snippets: float,
) -> Iterator[Batch]:
    """Yields batches of titles alone, then of titles and queries, without end.

    Args:
      task: what is learnt.
      learnt: numbers of the training pairs.
      config: the network.
      rows: of a batch.
      title_steps: batches of titles alone.
      seed: of the order, and of snippets.
      snippets: see `Course`.
    """
    random = np.random.Generator(np.random.Philox(key=seed))

    def batch(items: np.ndarray, pairs: np.ndarray) -> Batch:
        found = _batch(task, items, pairs, config=config)
        texts, short = found["encoder_input_tokens"], random.random(len(items)) < snippets
        few = np.flatnonzero(short)  # the items' rows come first
        texts[few] = snippets_of(texts[few], marks=task.marks, random=random)
        return found

    titles = index_batches(rows=len(task.items), batch_size=rows, seed=seed)
    for _ in range(title_steps):
        yield batch(next(titles), learnt[:0])
    of_titles = round(TITLE_RATE * rows)
    pairs = index_batches(rows=len(learnt), batch_size=rows - of_titles, seed=seed)
    titles = index_batches(rows=len(task.items), batch_size=of_titles, seed=seed + 1)
    while True:
        yield batch(next(titles), learnt[next(pairs)])


def snippets_of(
    texts: np.ndarray, *, marks: tuple[int, ...], random: np.random.Generator
) -> np.ndarray:
    """Returns a few pieces in a row of each text, from 2 to 8, within its marks."""
    before, behind = marks
    whole = (texts != PAD).sum(axis=1, keepdims=True) - before - behind
    length = np.minimum(random.integers(2, 9, whole.shape), whole)
    first = random.integers(0, whole - length + 1)
    place, beyond = np.arange(texts.shape[1])[None], texts.shape[1]
    source = np.where(place < before, place, place + first)
    source = np.where(place < before + length, source, place - length + whole)
    source = np.where(place < before + length + behind, source, beyond)
    return np.take_along_axis(np.pad(texts, ((0, 0), (0, 1))), source, axis=1)


def whole_batches(
    task: Task, pairs: np.ndarray, *, config: Architecture, rows: int
) -> Iterator[Batch]:
    """Yields all of some training pairs once, the last batch filled up with rows of no weight."""
    nothing = np.arange(0)
    for start in range(0, len(pairs), rows):
        some = pairs[start : start + rows]
        filled = np.resize(some, rows)
        batch = _batch(task, nothing, filled, config=config)
        counts = np.arange(rows) < len(some)
        weights = batch["decoder_loss_weights"] * counts[:, None].astype(np.float32)
        yield batch | {"decoder_loss_weights": weights}


def _batch(task: Task, items: np.ndarray, pairs: np.ndarray, *, config: Architecture) -> Batch:
    """Returns rows of items' texts and of queries; see `train.batch_spec`."""
    query, answer = task.train[pairs].T
    written = task.sids[np.concatenate([items, answer])]
    weight = np.concatenate([np.ones(len(items), np.float32), task.weight[pairs]])
    tokens = to_tokens(written, sizes=task.sizes, text_vocab_size=config.text_vocab_size)
    return {
        "encoder_input_tokens": np.concatenate([task.items[items], task.queries[query]]),
        "decoder_target_tokens": np.asarray(tokens, np.int32),
        "decoder_loss_weights": np.broadcast_to(weight[:, None], written.shape),
    }
