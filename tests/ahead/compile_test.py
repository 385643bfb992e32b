"""Steps compiled for chips that are not here, by the real command line."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from dsirm_jax.ahead.chips import CHIPS, Slice
from dsirm_jax.ahead.compile import STEPS, Target
from dsirm_jax.io.errors import InputError
from dsirm_jax.run import configuration
from dsirm_jax.stages import encode, generate, quantize, relevance

FILES = sorted([*Path("gin/tpu").glob("*.gin"), *Path("gin/gpu").glob("*.gin")])
TINY = [
    "--gin_file=gin/models/tiny.gin",
    "--gin_bindings=from dsirm_jax.stages import prepare\nprepare.run.vocabulary_size = 500",
    "--gin.relevance.run.head=@mlp.Mlp()",
    "--gin.quantizer_config.QuantizerConfig.codebook_sizes=(16, 8, 8)",
    "--gin.t5.T5Config.num_encoder_layers=1",
    "--gin.t5.T5Config.num_decoder_layers=1",
]
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="pip install '.[tpu]'"
)


def compiled(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "dsirm_jax", "compile", *TINY, *arguments],
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@needs_libtpu
def test_every_step_compiles_for_a_tpu():
    done = compiled("--topology=v5e:2x2")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line[0] != " "}
    assert lines.keys() == {"v5e:2x2:", "step", *STEPS}
    for step in STEPS:
        assert lines[step].split()[-1] in ("compute", "memory", "interconnect")
    assert done.stdout.count("all-reduce over 4") >= 4  # a search sends nothing


@pytest.mark.slow
@needs_libtpu
def test_a_step_that_does_not_fit_names_the_binding():
    done = compiled(
        *("--topology=v5e:2x2", "--step=relevance", "--step=quantize"),
        "--gin.relevance/settings.Training.batch_size=400000000",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "relevance needs" in done.stderr and "17.18 GB" in done.stderr
    assert "a smaller relevance/settings.Training.batch_size" in done.stderr
    assert "quantize needs" not in done.stderr


@pytest.mark.slow
def test_for_gpus_the_compiler_of_cpus_stands_in():
    done = compiled("--topology=h100:2", "--step=quantize")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "h100:2: 2 chips; each 80.0 GB" in done.stdout
    assert "all-gather over 2" in done.stdout


@pytest.mark.parametrize("file", FILES, ids=str)
def test_run_files_go_together(file):
    demo = ["gin/runs/demo.gin", str(file)]
    configuration.parse(files=demo, bindings=["MODEL_DIR = 'out'"])
    after_a_run = configuration.bound(generate.run)
    configuration.parse(files=[str(file)], bindings=[])
    chips = Slice(name=configuration.bound(Target)["topology"])
    assert Path(file).stem == f"{chips.name.partition(':')[0]}_{chips.size}"
    bound = configuration.bound(generate.run)
    assert bound == after_a_run
    shared = bound.get("model_parallel", 1)
    config, rows = bound["config"], bound["training"].batch_size
    assert config.num_heads % shared == config.mlp_dim % shared == 0
    assert rows % (chips.size // shared) == 0
    for stage in (quantize.run, relevance.run):
        assert configuration.bound(stage)["training"].batch_size % chips.size == 0
    encoder = configuration.bound(encode.run)["encoder"]
    assert encoder.training.batch_size % chips.size == 0


def test_run_files_are_for_all_chips_from_one_host_to_256():
    names = {file.stem for file in FILES}
    for kind in CHIPS.keys() - {"h100", "h200"}:
        assert f"{kind}_256" in names and names & {f"{kind}_4", f"{kind}_8"}
    assert {"h100_8", "h100_64", "h200_1"} <= names


def test_a_host_has_a_slice_of_its_own():
    of_hosts = {"v5e:16x16": "v5e:2x2", "v5p:4x8x8": "v5p:2x2x1", "h100:64": "h100:8"}
    of_hosts |= {"h200:1": "h200:1"}
    assert {name: Slice(name=name).host().name for name in of_hosts} == of_hosts
    assert Slice(name="v5e:1x1").host().name == "v5e:1x1"


@pytest.mark.parametrize("name", ["", "v5e", "v5e:", "v5e:4y4", "v9:4x4", "v5e:0x4"])
def test_a_topology_that_is_none_is_named(name):
    with pytest.raises(InputError, match=f"topology '{name}': give GENERATION:SHAPE"):
        Slice(name=name)
