"""Input beside the steps of an accelerator that is not here, and what the training loop adds.

Whether input starves a chip is a matter of the host alone, once the chip's step is known. A case
has the batches a second that this host gives, and those that the chip takes.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from lines import line

from dsirm_jax.quantizer.resident import table_feed
from dsirm_jax.quantizer.training_items import TrainingItems, batches_of
from dsirm_jax.training.feeds import Feed, HostFeed
from dsirm_jax.training.loop import TrainState, calls, fit, steps_at_once
from dsirm_jax.training.meshes import DATA_AXIS, data_mesh, pmapped, sharded
from dsirm_jax.training.settings import Training

STEP_MS = {
    "quantizer/4096": 0.13,
    "quantizer/65536": 2.1,
    "generator/small": 15.0,
    "generator/base": 60.0,
    "encoder/towers": 2.0,
    "encoder/minilm": 21.0,
}
"""Of an H200, 2026-11-28: measured with 4,096 x 256 numbers and 3 x 512 codes, steps queued, and
for T5-base, where 98 were measured, the aim; the others are estimates by their operations. 1,024
rows of generator and MiniLM, 8,192 of the towers."""
TRAINING = Training(epochs=1, batch_size=1, learning_rate=0, checkpoint_every=10**6, log_every=50)


def versus(case: str, rates: list[float], step_ms: dict[str, float], *, chip: str) -> dict:
    """Compares batches/s, repeatedly measured, with the steps/s of `chip/...`."""
    step = 1e3 / step_ms[chip]
    ratios = [rate / step for rate in rates]
    return line(
        f"feeding/{case}",
        np.median(rates),
        step,
        "batches/s",
        ratio=np.median(ratios),
        low=min(ratios),
        high=max(ratios),
    )


def quantizer_cases(
    *, items: int, step_ms: dict[str, float], repeats: int
) -> Iterator[dict[str, Any]]:
    """Yields the quantizer's cases: vectors in the host's memory and on the device."""
    random = np.random.default_rng(0)
    queries, pairs = items // 3, 3 * items
    given = TrainingItems(
        items=random.standard_normal((items, 256), np.float32),
        queries=random.standard_normal((queries, 256), np.float32),
        pairs=random.integers(0, (queries, items), (pairs, 2)),
    )
    rows = given.rows()
    for size in (65536, 4096):
        drawn = {"rows": rows, "batch_size": size, "seed": 0}
        host = HostFeed(batches=batches_of(given, **drawn), placement=pmapped(jax.devices()[:1]))
        table = table_feed(given, **drawn, devices=jax.devices()[:1], room=2**40)
        assert table is not None
        for name, feed in (("host", host), ("device", table)):
            chip, count = f"quantizer/{size}", 2**22 // size if feed is host else 2**25 // size
            rates = [placed_rate(feed, count) for _ in range(repeats)]
            yield versus(f"{chip} from {name}", rates, step_ms, chip=chip)
    # What a device gathers is its own affair, and here the host would do it.
    numbers = dataclasses.replace(table, gather=lambda tables, rows: {"row": rows})
    rates = [loop_rate(numbers, count) for _ in range(repeats)]
    yield versus(f"loop, {chip} from device", rates, step_ms, chip=chip)


def loop_case(step_ms: dict[str, float], *, repeats: int) -> dict[str, Any]:
    """Returns the case of the loop alone: the same small batch over and over."""
    feed = HostFeed(
        batches=lambda start: itertools.repeat({"x": np.zeros((8, 1), np.float32)}),
        placement=sharded(data_mesh(jax.devices()[:1])),
    )
    rates = [loop_rate(feed, 5000, pmap=False) for _ in range(repeats)]
    return versus("loop alone", rates, step_ms, chip="generator/small")


def placed_rate(feed: Feed, count: int) -> float:
    """Returns the batches a second that a feed brings to the device."""
    at_once = steps_at_once(feed, TRAINING)
    placed = feed.placed(map(len, calls(0, 10**9, at_once=at_once)), start=0)
    next(placed)  # what is done once: tables go to the device, an epoch is put in order
    started, taken = time.perf_counter(), 0
    while taken < count:
        jax.block_until_ready(next(placed))
        taken += at_once
    return taken / (time.perf_counter() - started)


def loop_rate(feed: Feed, count: int, *, pmap: bool = True) -> float:
    """Returns the steps a second of the whole loop with a step that does nothing."""

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        touched = sum(jnp.ravel(values)[0].astype(jnp.float32) for values in batch.values())
        state = state.replace(step=state.step + 1)
        return state, {name: 0 * touched for name in ("loss", "gradient_norm")}

    devices = jax.devices()[:1]
    if pmap:
        compiled = jax.pmap(step, axis_name=DATA_AXIS, devices=devices, donate_argnums=0)
        placement = pmapped(devices)
    else:
        compiled, placement = jax.jit(step, donate_argnums=0), sharded(data_mesh(devices))
    state = TrainState(step=np.zeros((), np.int32), params=np.zeros(1, np.float32), opt_state=())

    def seconds(steps: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            fit(
                name="nothing",
                state=state,
                step=compiled,
                batches=lambda start: iter(()),
                num_steps=steps,
                directory=Path(folder),
                training=TRAINING,
                placement=placement,
                feed=feed,
            )
            return time.perf_counter() - started

    few = 2 * TRAINING.log_every
    count = few + max(count // few, 1) * few
    seconds(few)  # compiles
    return (count - few) / (seconds(count) - seconds(few))


def pieces_rates(
    batches: Callable[[], Iterator[Any]], *, epoch: int, repeats: int
) -> tuple[list[float], list[float]]:
    """Returns batches/s of first epochs, which tokenise, and of second ones, which need not."""
    first, second = [], []
    for _ in range(repeats):
        stream = batches()
        for rates in (first, second):
            started = time.perf_counter()
            for _ in itertools.islice(stream, epoch):
                pass
            rates.append(epoch / (time.perf_counter() - started))
    return first, second
