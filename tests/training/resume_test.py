"""Every stage, killed again and again, ends with the bits of an uninterrupted run."""

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from dsirm_jax.data.pairs import positives_of
from dsirm_jax.encoder.kinds.towers import TwoTowers, fit_towers
from dsirm_jax.generator import train as generator
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.losses import GeneratorObjective
from dsirm_jax.quantizer import fitting as quantizer
from dsirm_jax.quantizer.codebooks import Upkeep
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.kinds.rq_vae import RqVae
from dsirm_jax.quantizer.losses import QuantizerObjective
from dsirm_jax.quantizer.training_items import TrainingItems
from dsirm_jax.relevance import train as relevance
from dsirm_jax.relevance.calibration import Calibration
from dsirm_jax.relevance.heads.mlp import Mlp
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.report.curves import read_curves
from dsirm_jax.training import loop, processes
from dsirm_jax.training.batches import index_batches
from dsirm_jax.training.settings import Training
from tests import compilation
from tests.quantizer.processes_test import TIMEOUT, free_port

STAGES = ("encode", "quantize", "generate", "relevance")
ROWS, STEPS = 96, 12
TRAINING = Training(
    epochs=1, batch_size=ROWS // STEPS, learning_rate=0.01, checkpoint_every=2, log_every=3
)


def rows_of(arrays, seed):
    def batches(start):
        orders = index_batches(rows=ROWS, batch_size=TRAINING.batch_size, seed=seed, start=start)
        for chosen in orders:
            yield {name: values[chosen] for name, values in arrays.items()}

    return batches


def train_encoder(directory, rng):
    pairs = np.stack([np.arange(ROWS), rng.integers(0, 9, ROWS)], axis=1)
    arrays = {
        "query": rng.integers(0, 50, (ROWS, 4)).astype("i4"),
        "item": rng.integers(0, 50, (ROWS, 6)).astype("i4"),
        "query_index": pairs[:, 0],
        "item_index": pairs[:, 1],
    }
    fit_towers(
        config=TwoTowers(
            dim=8,
            hidden_dim=8,
            max_query_pieces=4,
            max_item_pieces=6,
            temperature=0.1,
            training=TRAINING,
        ),
        vocab_size=50,
        batches=rows_of(arrays, 0),
        num_rows=ROWS,
        positives=positives_of(pairs, queries=ROWS),
        directory=directory,
        seed=1,
    )


def train_quantizer(directory, rng):
    vectors = rng.normal(size=(ROWS, 6)).astype("f4")
    asked = rng.permutation(ROWS)[:24]
    quantizer.train(
        config=QuantizerConfig(codebook_sizes=(4, 4), kind=RqVae(latent_dim=4, hidden_dim=8)),
        objective=QuantizerObjective(commitment=1.0, contrastive=0.5, temperature=0.1),
        upkeep=Upkeep(decay=0.9, restart_below=0.5, init_rows=ROWS, init_iterations=2),
        training=TRAINING,
        items=TrainingItems(
            items=vectors,
            queries=vectors[asked] + 0.1,
            pairs=np.stack([np.arange(24), asked], axis=1),
            pinned=None,
        ),
        directory=directory,
        seed=1,
    )


def train_generator(directory, rng):
    arrays = {
        "encoder_input_tokens": rng.integers(1, 50, (ROWS, 4)).astype("i4"),
        "decoder_target_tokens": (50 + rng.integers(0, 4, (ROWS, 2)) + [0, 4]).astype("i4"),
        "decoder_loss_weights": np.ones((ROWS, 2), "f4"),
    }
    generator.train(
        config=T5Config(
            emb_dim=8,
            num_heads=2,
            head_dim=4,
            mlp_dim=8,
            num_encoder_layers=1,
            num_decoder_layers=1,
            dropout_rate=0.1,
            text_vocab_size=50,
            sid_sizes=(4, 4),
        ),
        objective=GeneratorObjective(),
        training=TRAINING,
        batches=rows_of(arrays, 0),
        num_rows=ROWS,
        directory=directory,
        seed=1,
        held_out=list(itertools.islice(rows_of(arrays, 7)(0), 2)),
    )


def train_relevance(directory, rng):
    relevance.train(
        name="relevance",
        features=FeatureTable(
            names=tuple("abcde"),
            groups=("dense",) * 5,
            values=rng.normal(size=(ROWS, 5)).astype("f4"),
        ),
        labels=rng.random(ROWS) < 0.4,
        gains=np.zeros(ROWS),
        weights=np.ones(ROWS),
        queries=[str(row) for row in range(ROWS)],
        head=Mlp(hidden=(8,)),
        training=TRAINING,
        calibration=Calibration(share=0.0),
        directory=directory,
        seed=1,
    )


def train_all(directory, *, stage=None, step=None, delay=0.0, number=None):
    """Trains every stage; at a step of one, or so many seconds later, gets a signal."""
    original, shot = loop.progress, []

    def fatal(stream, *, name, initial, **arguments):
        shown = original(stream, name=name, initial=initial, **arguments)
        for index, element in enumerate(shown, start=initial + 1):
            if (name, index) == (stage, step):
                shoot = threading.Timer(delay, os.kill, (os.getpid(), number))
                shoot.daemon = True
                shoot.start() if delay else os.kill(os.getpid(), number)
                shot.append(index)
            if shot and processes.several():
                time.sleep(2)  # the notice goes round in the background, once a second
            yield element

    loop.progress = fatal
    for name, train in zip(
        STAGES, (train_encoder, train_quantizer, train_generator, train_relevance), strict=True
    ):
        train(directory / name, np.random.default_rng(0))


def start(directory, *arguments, devices=1, **settings):
    """Starts `train_all` in a process of its own."""
    environment = os.environ | {"XLA_FLAGS": compilation.flags(devices=devices)}
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(directory), *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        env=environment | settings,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process):
    """Returns a process's exit code and last words."""
    try:
        _, said = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    return process.returncode, said[-3000:]


def run(*arguments, **settings):
    return end(start(*arguments, **settings))


def run_several(directory, *arguments, processes=2):
    """Does as several processes with a device each; returns their ends."""
    address = f"localhost:{free_port()}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)}
    started = [
        start(directory, *arguments, **shared, JAX_PROCESS_ID=str(index))
        for index in range(processes)
    ]
    return [end(process) for process in started]


def final_state(directory):
    steps = [int(path.name) for path in (directory / "checkpoints").glob("[0-9]*")]
    item = directory / "checkpoints" / str(max(steps)) / "default"
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.metadata(item).item_metadata.tree
        on_host = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), saved)
        state = checkpointer.restore(item, on_host)
    return max(steps), {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    code, said = run(directory)
    assert code == 0, said
    return directory


def assert_same_bits(directory, whole):
    for stage in STAGES:
        (expected_step, expected), (found_step, found) = map(
            final_state, (whole / stage, directory / stage)
        )
        assert found_step == expected_step >= STEPS
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            assert values.dtype == found[key].dtype
            assert values.tobytes() == found[key].tobytes(), (stage, key)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_twice_in_an_epoch_of_every_stage(uninterrupted, tmp_path, seed):
    rng = np.random.default_rng(seed)
    for stage in STAGES:
        for first, last in ((1, STEPS // 2), (STEPS // 2 + 1, STEPS - 1)):
            step, delay = rng.integers(first, last, endpoint=True), rng.uniform(0, 0.02)
            code, said = run(tmp_path, stage, step, delay, int(signal.SIGKILL))
            assert code == -signal.SIGKILL, said
    code, said = run(tmp_path)
    assert code == 0, said
    assert_same_bits(tmp_path, uninterrupted)


@pytest.mark.slow
def test_sigterm_saves_and_exits_and_the_next_process_goes_on(uninterrupted, tmp_path):
    for stage in STAGES:
        code, said = run(tmp_path, stage, 5, 0.0, int(signal.SIGTERM))
        assert code == 143, said
        assert final_state(tmp_path / stage)[0] == 5
    code, said = run(tmp_path)
    assert code == 0, said
    assert_same_bits(tmp_path, uninterrupted)


@pytest.mark.slow
def test_two_processes_save_stop_and_go_on_together(tmp_path):
    whole, two = (tmp_path / name for name in ("whole", "two"))
    code, said = run(whole, devices=2)
    assert code == 0, said
    # The first process alone gets the signal.
    ends = run_several(two, "encode", 5, 0.0, int(signal.SIGTERM))
    assert [code for code, _ in ends] == [143, 143], ends
    stopped, _ = final_state(two / "encode")
    assert 5 <= stopped < STEPS
    ends = run_several(two, "generate", 7, 0.0, int(signal.SIGKILL))
    assert ends[0][0] == -signal.SIGKILL, ends
    # The other one, which `end` would kill, stops of itself and says why.
    assert ends[1][0] not in (0, -signal.SIGKILL), ends
    assert re.search("(?i)gloo|heartbeat|coordination|connection", ends[1][1]), ends
    ends = run_several(two)
    assert [code for code, _ in ends] == [0, 0], ends
    assert_same_bits(two, whole)


@pytest.mark.slow
def test_four_processes_have_the_losses_of_one(tmp_path):
    one, four = (tmp_path / name for name in ("one", "four"))
    code, said = run(one, devices=4)
    assert code == 0, said
    ends = run_several(four, processes=4)
    assert [code for code, _ in ends] == [0] * 4, ends
    for stage in STAGES:
        assert len(list((four / stage / "logs").iterdir())) == 1  # the first process writes alone
        expected, found = (read_curves(folder / stage / "logs") for folder in (one, four))
        assert found.keys() == expected.keys() and len(found["loss"]) == STEPS // 2 + STEPS // 6
        for tag, points in expected.items():
            np.testing.assert_allclose(found[tag], points, rtol=1e-4, atol=1e-5, err_msg=tag)


if __name__ == "__main__":
    if "JAX_PROCESS_ID" in os.environ:
        processes.start()
    folder, *rest = sys.argv[1:]
    names = ("stage", "step", "delay", "number")
    kinds = (str, int, float, int)
    train_all(
        Path(folder), **{n: kind(given) for n, kind, given in zip(names, kinds, rest, strict=False)}
    )
