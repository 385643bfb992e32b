"""Two real processes with two devices each do what one process with four does."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
from unittest import mock

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from dsirm_jax.data.vectors import shard, shards, write_vectors
from dsirm_jax.quantizer import assign
from dsirm_jax.quantizer import fitted as quantizers
from dsirm_jax.quantizer.codebooks import Upkeep
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.fitting import train
from dsirm_jax.quantizer.kinds.hierarchical_kmeans import HierarchicalKmeans
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.quantizer.kinds.rq_vae import RqVae
from dsirm_jax.quantizer.losses import QuantizerObjective
from dsirm_jax.quantizer.model import UNPINNED
from dsirm_jax.quantizer.training_items import TrainingItems
from dsirm_jax.sids.codes import read_sids
from dsirm_jax.training.settings import Training
from tests import compilation

pytestmark = pytest.mark.slow

# Kind and weight of the contrastive term.
QUANTIZERS = {
    "contrastive": (RqVae(latent_dim=4, hidden_dim=8), 0.5),
    "unsupervised": (RqVae(latent_dim=4, hidden_dim=8), 0.0),
    "residual_kmeans": (ResidualKmeans(), 0.0),
    "hierarchical_kmeans": (HierarchicalKmeans(), 0.0),
}
SHARDS = (20, 0, 31, 7, 38)
DEVICES = 4
TIMEOUT = 3600  # seconds; ends what hangs, and is no measure of speed
RESERVED = []


def make_items(*, items=96, queries=24, dim=6):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(items, dim)).astype("f4")
    answers = rng.integers(0, items, queries)
    return TrainingItems(
        items=vectors,
        queries=(vectors[answers] + 0.1 * rng.normal(size=(queries, dim))).astype("f4"),
        pairs=np.stack([np.arange(queries), answers], axis=1),
        pinned=rng.integers(UNPINNED, 4, items).astype("i4"),
        names=tuple("abcd"),
    )


def fit(name, directory):
    kind, contrastive = QUANTIZERS[name]
    return train(
        config=QuantizerConfig(codebook_sizes=(4, 4), pin_depth=1, kind=kind),
        objective=QuantizerObjective(commitment=1.0, contrastive=contrastive, temperature=0.1),
        upkeep=Upkeep(decay=0.9, restart_below=0.5, init_rows=96, init_iterations=2),
        training=Training(epochs=2, batch_size=32, learning_rate=3e-3, checkpoint_every=2),
        items=make_items(),
        directory=directory / name,
        seed=1,
    )


def run_process(directory, *, index, processes, port):
    """What each process does."""
    if processes > 1:
        jax.distributed.initialize(
            f"localhost:{port}",
            num_processes=processes,
            process_id=index,
            initialization_timeout=TIMEOUT,
        )
    assert (jax.device_count(), jax.process_count()) == (DEVICES, processes)
    for name in QUANTIZERS:
        fitted = fit(name, directory)
        quantizers.save(directory / f"{name}-{index}.safetensors", fitted)
        with mock.patch.object(assign, "sid_writer", wraps=assign.sid_writer) as writer:
            paths = assign.assign_shards(
                fitted=fitted,
                vectors=shards(directory / "items-*.parquet"),
                pattern=directory / f"{name}-sids-*.parquet",
                pinned=make_items().pinned,
            )
        wrote = [paths.index(call.args[0]) for call in writer.call_args_list]
        assert wrote == list(range(index, len(SHARDS), processes))
        if index == 0:
            assign.join_sids(paths, into=directory / f"{name}.parquet", sizes=fitted.sizes)
    steps = directory / "residual_kmeans" / "checkpoints"
    if index == 0:
        assert sorted(path.name for path in steps.iterdir()) == ["4", "6"]
        shutil.rmtree(steps / "6")
    multihost_utils.sync_global_devices("the last step is forgotten")
    quantizers.save(directory / f"resumed-{index}.safetensors", fit("residual_kmeans", directory))


def write_shards(directory):
    items, start = make_items().items, 0
    for number, count in enumerate(SHARDS):
        rows = np.arange(start, start + count)
        path = shard(directory / "items-*.parquet", number=number, total=len(SHARDS))
        write_vectors(path, [f"i{row}" for row in rows], items[rows], id_column="item_id")
        start += count


def start_process(directory, *, index, processes, port):
    flags = compilation.flags(devices=DEVICES // processes)
    with (directory / f"output-{index}.txt").open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", __name__, directory, *map(str, (index, processes, port))],
            cwd=pathlib.Path(__file__).parents[2],
            env=os.environ | {"XLA_FLAGS": flags},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def free_port():
    """Returns a port that stays this process's: JAX may listen there, since it shares ports."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("localhost", 0))
    RESERVED.append(reserved)
    return reserved.getsockname()[1]


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory):
    """Returns the folder of what one process wrote and that of two."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    started = []
    try:
        for processes, folder in enumerate(folders, start=1):
            write_shards(folder)
            shared = {"processes": processes, "port": free_port()}
            for index in range(processes):
                started.append(start_process(folder, index=index, **shared))
        for process in started:
            process.wait(timeout=TIMEOUT)
    finally:
        for process in started:
            process.kill()
            process.wait()
    output = [path.read_text()[-3000:] for folder in folders for path in folder.glob("output-*")]
    assert [process.returncode for process in started] == [0, 0, 0], "\n".join(output)
    return folders


@pytest.mark.parametrize("name", QUANTIZERS)
def test_two_processes_fit_the_quantizer_of_one(one_and_two, name):
    one, two = one_and_two
    (expected,) = (quantizers.load(path) for path in one.glob(f"{name}-?.safetensors"))
    first, second = (quantizers.load(path) for path in two.glob(f"{name}-?.safetensors"))
    assert first.version == second.version
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        (first.params, first.codebooks),
        (expected.params, expected.codebooks),
    )


def test_two_processes_go_on_from_their_checkpoint_to_the_same_bits(one_and_two):
    _, two = one_and_two
    versions = [
        quantizers.load(two / f"{name}-{index}.safetensors").version
        for name in ("residual_kmeans", "resumed")
        for index in range(2)
    ]
    assert len(set(versions)) == 1


@pytest.mark.parametrize("name", QUANTIZERS)
def test_two_processes_assign_what_one_does(one_and_two, name):
    expected, assigned = (read_sids(folder / f"{name}.parquet") for folder in one_and_two)
    assert assigned.item_ids.to_pylist() == [f"i{row}" for row in range(sum(SHARDS))]
    np.testing.assert_array_equal(assigned.sids, expected.sids)
    np.testing.assert_allclose(assigned.distances, expected.distances, rtol=1e-5, atol=1e-6)


def test_the_first_process_writes_the_logs(one_and_two):
    one, two = (len(list((folder / "contrastive/logs").iterdir())) for folder in one_and_two)
    assert one == two == 1


if __name__ == "__main__":
    folder, *numbers = sys.argv[1:]
    index, processes, port = map(int, numbers)
    run_process(pathlib.Path(folder), index=index, processes=processes, port=port)
