"""Batches a second of the input pipelines beside what training takes, and beside stock SeqIO.

    python benchmarks/input.py [--quick] [--feeding] [--step_ms CASE=MS] [--json FILE]

The rows are those of a simulated shop after `prepare`. `step`: the training step alone, without
its input, at demo size (gin/models/tiny.gin) and at a small one (T5-small; 3 x 512 codes). `seqio`:
the same task as SeqIO deals it out (shuffle, trim and pad, batch). The generator's and encoder's
rows come in blocks of a quarter of `tasks.BLOCK_ROWS`, tokenised anew in every epoch: a shop that
is larger than a block. Every measurement is of one epoch from its start; with --quick of eight, of
a shop that is a single block, which is read once; `restart` is of the seconds to the first batch in
the middle of one. `feeding`, alone with --feeding, is against steps of an H200 that need not be
here (`feeding.STEP_MS`, or what --step_ms says): the quantizer's vectors on the host or the device,
first epochs of the generator's and encoder's rows, which are tokenised, and second ones; and the
whole loop, with a step that does nothing. Ratios above 1 are in our favour; low and high are those
of the single repetitions.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import feeding
import gin
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow.parquet as pq
from lines import line, print_heading, print_row, write
from shapes import T5_SMALL

from dsirm_jax.data import dataset, pairs, tasks, vocabulary
from dsirm_jax.data.schema import TRAIN
from dsirm_jax.encoder.kinds.towers import TwoTowers, text_tower
from dsirm_jax.encoder.losses import QueryItemRows, symmetric_info_nce
from dsirm_jax.encoder.train import batch_spec, pair_batches
from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.losses import GeneratorObjective
from dsirm_jax.generator.train import make_generator_loss
from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.ingestion.readers import simulated_shop
from dsirm_jax.quantizer.batchwise import initial_state
from dsirm_jax.quantizer.codebooks import Upkeep
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.kinds.rq_vae import RqVae
from dsirm_jax.quantizer.learning import Learning
from dsirm_jax.quantizer.losses import QuantizerObjective
from dsirm_jax.quantizer.training_items import TrainingItems, batches_of
from dsirm_jax.training.meshes import pmapped
from dsirm_jax.training.settings import Training, make_optimizer

DENSE = 128
SIZES = ("demo", "small")
BLOCK_ROWS = tasks.BLOCK_ROWS // 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shop:
    """What `prepare` made: where it is, item texts, relevant pairs and made-up codes."""

    folder: Path
    items: int
    queries: int
    sids: np.ndarray
    pairs: np.ndarray

    def where(self) -> dict[str, Path]:
        """Returns what every task is told."""
        return {"tfds_dir": self.folder / "tfds", "vocabulary": self.folder / "vocabulary.model"}


def main() -> None:
    """Measures all cases and prints them as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 000 items instead of 100 000")
    parser.add_argument("--feeding", action="store_true", help="no steps here, and no SeqIO")
    parser.add_argument(
        "--step_ms",
        action="append",
        default=[],
        metavar="CASE=MS",
        help=f"step of a chip, such as quantizer/4096=0.2; cases: {', '.join(feeding.STEP_MS)}",
    )
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    given = parser.parse_args()
    gin.parse_config_file(str(Path(__file__).parents[1] / "gin/models/tiny.gin"))
    lines = []
    print_heading("case", "ours", "other", "unit", "ratio", "low", "high")
    with tempfile.TemporaryDirectory() as folder:
        shop = _shop(Path(folder), items=2_000 if given.quick else 100_000)
        repeats = 2 if given.quick else 3
        here = _cases(shop, repeats=repeats, epochs=8 if given.quick else 1)
        steps = feeding.STEP_MS | {k: float(v) for k, v in (x.split("=") for x in given.step_ms)}
        fed = _fed(shop, steps, repeats=repeats, items=20_000 if given.quick else 300_000)
        for case in fed if given.feeding else itertools.chain(here, fed):
            lines.append(case)
            print_row(*(v if isinstance(v, str) else f"{v:.4g}" for v in case.values()))
    write(given.json, lines)


def _shop(folder: Path, *, items: int) -> Shop:
    prepare(
        source=simulated_shop.SimulatedShop(items=items, queries=items // 3),
        out_dir=folder,
        label_gains={"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0},
        relevant_labels=("E",),
        seed=0,
        vocabulary_size=4000,
    )
    dataset.write_dataset(prepare_dir=folder, data_dir=folder / "tfds")
    rows = {
        name: pq.read_metadata(folder / f"{name}.parquet").num_rows for name in ("items", "queries")
    }
    return Shop(
        folder=folder,
        **rows,
        sids=np.random.default_rng(0).integers(0, 128, (rows["items"], 3)).astype(np.int32),
        pairs=pairs.relevant_pairs(folder / "judgements.parquet", split=TRAIN),
    )


def _cases(shop: Shop, *, repeats: int, epochs: int) -> Iterator[dict[str, Any]]:
    for size in SIZES:
        batches, step = _quantizer(shop, size)
        yield _versus_step(f"input/quantizer/{size} vs step", batches, step, 50, repeats)
    for stage in (_generator, _encoder):
        name = stage.__name__.strip("_")
        for size in SIZES:
            task, lengths, batch_size, step = stage(shop, size)
            epoch = tasks.num_rows(task) // batch_size

            def batches(start: int = 0, task=task, lengths=lengths, batch_size=batch_size):
                return tasks.batches(
                    task=task,
                    lengths=lengths,
                    batch_size=batch_size,
                    seed=0,
                    start_step=start,
                    block_rows=BLOCK_ROWS,
                )

            count = epochs * epoch
            yield _versus_step(f"input/{name}/{size} vs step", batches, step, count, repeats)
            if size != SIZES[0]:
                continue

            def stock(start: int = 0, task=task, lengths=lengths, batch_size=batch_size):
                return _stock_batches(task, lengths, batch_size, start)

            ours = [_rate(batches(), count) for _ in range(repeats)]
            other = [_rate(stock(), count) for _ in range(repeats)]
            yield _compared(f"input/{name}/{size} vs seqio", ours, other, "batches/s")
            ours = [_seconds_to_first(batches, epoch // 2) for _ in range(repeats)]
            other = [_seconds_to_first(stock, epoch // 2) for _ in range(repeats)]
            yield _compared(f"restart/{name}/{size} vs seqio", ours, other, "s")


def _fed(
    shop: Shop, step_ms: dict[str, float], *, repeats: int, items: int
) -> Iterator[dict[str, Any]]:
    """Yields the cases against steps of a chip that is not here."""
    yield feeding.loop_case(step_ms, repeats=repeats)
    yield from feeding.quantizer_cases(items=items, step_ms=step_ms, repeats=repeats)
    mixture = tasks.text_sid(**shop.where(), sids=shop.sids, sizes=(128,) * 3, title_rate=0.5)
    texts = {"inputs": 32, "targets": 3}
    pairs_of_texts, both = tasks.query_item(**shop.where()), {"query": 16, "item": 64}
    for task, lengths, rows, chips in (
        (mixture, texts, 1024, ("generator/small", "generator/base")),
        (pairs_of_texts, both, 8192, ("encoder/towers",)),
    ):
        drawn = functools.partial(
            tasks.batches, task=task, lengths=lengths, batch_size=rows, seed=0
        )
        epoch = max(tasks.num_rows(task) // rows, 1)
        first, second = feeding.pieces_rates(drawn, epoch=epoch, repeats=repeats)
        for chip in chips:
            yield feeding.versus(f"{chip}, first epoch", first, step_ms, chip=chip)
            yield feeding.versus(f"{chip}, later epochs", second, step_ms, chip=chip)
    yield feeding.versus(
        "encoder/minilm", _minilm_rates(shop, repeats=repeats), step_ms, chip="encoder/minilm"
    )


def _minilm_rates(shop: Shop, *, repeats: int) -> list[float]:
    """Returns batches/s of pieces that have been made of all texts, as `Pretrained` reads them."""
    random, sides = (
        np.random.default_rng(0),
        (("query", shop.queries, 16), ("item", shop.items, 64)),
    )
    features = {
        side: random.integers(0, 30_000, (count, length)).astype(np.int32)
        for side, count, length in sides
    }
    training = Training(epochs=1, batch_size=1024, learning_rate=0)
    spec = batch_spec(
        rows=1024,
        features={side: jax.ShapeDtypeStruct((length,), jnp.int32) for side, _, length in sides},
    )
    drawn = pair_batches(
        features,
        judgements=shop.folder / "judgements.parquet",
        queries=shop.folder / "queries.parquet",
        training=training,
        spec=spec,
        seed=0,
    )
    return [_rate(drawn.batches(0), 500) for _ in range(repeats)]


def _versus_step(
    case: str,
    batches: Callable[[], Iterator[Any]],
    step: Callable[[Any], Any],
    count: int,
    repeats: int,
) -> dict[str, Any]:
    """Compares `count` batches with steps on one of them; few steps, as a large one takes long."""
    batch = next(batches())
    step(batch)
    ours, other = [], []
    for _ in range(repeats):
        ours.append(_rate(batches(), count))
        started, steps = time.perf_counter(), 0
        while steps < 20 and time.perf_counter() - started < 10:
            step(batch)
            steps += 1
        other.append(steps / (time.perf_counter() - started))
    return _compared(case, ours, other, "batches/s")


def _rate(batches: Iterator[Any], count: int) -> float:
    started = time.perf_counter()
    for _ in itertools.islice(batches, count):
        pass
    return count / (time.perf_counter() - started)


def _seconds_to_first(batches: Callable[[int], Iterator[Any]], start: int) -> float:
    started = time.perf_counter()
    next(batches(start))
    return time.perf_counter() - started


def _compared(case: str, ours: list[float], other: list[float], unit: str) -> dict[str, Any]:
    ratios = [a / b if unit == "batches/s" else b / a for a, b in zip(ours, other, strict=True)]
    return line(
        case,
        np.median(ours),
        np.median(other),
        unit,
        ratio=np.median(ratios),
        low=min(ratios),
        high=max(ratios),
    )


def _stock_batches(task: Any, lengths: dict[str, int], batch_size: int, start: int):
    import seqio

    rows = task.get_dataset(lengths, TRAIN, shuffle=True, seed=0, num_epochs=None)
    rows = seqio.trim_and_pad_dataset(rows, lengths).batch(batch_size, drop_remainder=True)
    return rows.skip(start).prefetch(2).as_numpy_iterator()


def _bound(configurable: type, scope: str | None = None, **overrides: Any) -> Any:
    """Returns the dataclass as gin/models/tiny.gin binds it."""
    with gin.config_scope(scope):
        bindings = gin.get_bindings(configurable)
    names = {field.name for field in dataclasses.fields(configurable)}
    return configurable(**{k: v for k, v in bindings.items() if k in names} | overrides)


def _optimised(loss: Callable[..., jax.Array], params: Any, training: Training) -> Callable:
    """Returns a step that takes a host's batch; parameters and moments stay on the device."""
    optimizer = make_optimizer(training, num_steps=1000)

    @jax.jit
    def update(state, batch):
        params, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(params, batch), moments, params)
        return optax.apply_updates(params, updates), moments

    state = params, optimizer.init(params)

    def step(batch):
        nonlocal state
        state = jax.block_until_ready(update(state, batch))

    return step


def _generator(shop: Shop, size: str):
    training = _bound(Training, "generate")
    config = T5_SMALL if size == "small" else _bound(T5Config)
    sizes = (128, 128, 128)
    config = dataclasses.replace(
        config,
        text_vocab_size=vocabulary.size(shop.where()["vocabulary"]),
        sid_sizes=sizes,
    )
    loss = make_generator_loss(config, objective=GeneratorObjective(), seed=0)
    step = _optimised(
        lambda params, batch: loss(params, batch, 0)[0], init_params(config, seed=0), training
    )
    task = tasks.text_sid(**shop.where(), sids=shop.sids, sizes=sizes, title_rate=0.5)
    lengths = {"inputs": 24, "targets": len(sizes)}
    return task, lengths, training.batch_size, lambda b: step(tasks.generator_features(b))


def _encoder(shop: Shop, size: str):
    config = _bound(TwoTowers, training=_bound(Training, "encode"))
    if size == "small":
        training = dataclasses.replace(config.training, batch_size=1024)
        config = dataclasses.replace(config, dim=512, hidden_dim=1024, training=training)
    tower = text_tower(config, vocab_size=vocabulary.size(shop.where()["vocabulary"]))
    positives = pairs.positives_of(shop.pairs, queries=shop.queries)

    def loss(params, batch):
        rows = QueryItemRows(
            query=tower.apply(params, batch["query"]),
            item=tower.apply(params, batch["item"]),
            item_index=batch["item_index"],
            positives=batch["positives"],
            has_query=jnp.ones(batch["item_index"].shape),
        )
        own = jnp.arange(rows.item.shape[0])
        return jnp.mean(symmetric_info_nce(rows, rows, own=own, temperature=config.temperature))

    params = tower.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    step = _optimised(loss, params, config.training)
    return (
        tasks.query_item(**shop.where()),
        {"query": config.max_query_pieces, "item": config.max_item_pieces},
        config.training.batch_size,
        lambda b: step(
            {name: b[name] for name in ("query", "item", "item_index")}
            | {"positives": positives[b["query_index"]]}
        ),
    )


def _quantizer(shop: Shop, size: str):
    training, kind = _bound(Training, "quantize"), _bound(RqVae)
    sizes, dim, batch_size = _bound(QuantizerConfig).codebook_sizes, DENSE, training.batch_size
    if size == "small":
        sizes, dim, batch_size = (512,) * 3, 256, 4096
        kind = dataclasses.replace(kind, latent_dim=256)
    random = np.random.default_rng(0)
    items = TrainingItems(
        items=random.standard_normal((shop.items, dim), np.float32),
        queries=random.standard_normal((shop.queries, dim), np.float32),
        pairs=shop.pairs,
    )
    learner, optimizer = kind.learner(dim=dim), make_optimizer(training, num_steps=1000)
    learning = Learning(
        objective=_bound(QuantizerObjective),
        upkeep=_bound(Upkeep, init_iterations=1),
        training=training,
        seed=0,
        devices=tuple(jax.local_devices()),
    )
    placement = pmapped()
    state = placement.put_state(
        initial_state(
            learner,
            items=items,
            sizes=sizes,
            upkeep=learning.upkeep,
            optimizer=optimizer,
            seed=learning.seed,
        )
    )
    update = learner.make_step(
        module=learner.module, optimizer=optimizer, learning=learning, pinned=False
    )

    def step(batch):
        nonlocal state
        state, _ = jax.block_until_ready(update(state, placement.put_batch(batch)))

    made = batches_of(items, rows=items.rows(), batch_size=batch_size, seed=0)
    return lambda: made(0), step


if __name__ == "__main__":
    main()
