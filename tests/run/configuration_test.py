import dataclasses

import gin
import jax
import pytest

from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.io.errors import InputError
from dsirm_jax.run import configuration, job
from dsirm_jax.stages import STAGES, generate, quantize, report
from dsirm_jax.training.settings import Training

FILE = """
from __gin__ import dynamic_registration
from dsirm_jax.run import job
from dsirm_jax.stages import quantize
from dsirm_jax.stages import report
from dsirm_jax.quantizer import losses
from dsirm_jax.training import settings
MODEL_DIR = %gin.REQUIRED
SEED = 3
job.Job:
  model_dir = %MODEL_DIR
  seed = %SEED
  rungs = ('unsupervised',)
quantize.run.objective = @losses.QuantizerObjective()
losses.QuantizerObjective:
  commitment = 1.0
  contrastive = 0.5
  temperature = 0.1
unsupervised/losses.QuantizerObjective.contrastive = 0.0
quantize.run.training = @settings.Training()
settings.Training:
  epochs = 1
  batch_size = 8
  learning_rate = 0.1
"""
GIVEN = ["MODEL_DIR = 'out/x'"]


@pytest.fixture(autouse=True)
def clean():
    yield
    gin.clear_config(clear_constants=True)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.gin"
    path.write_text(FILE)
    return str(path)


def test_bindings_override_files(file):
    configuration.parse(files=[file], bindings=[*GIVEN, "SEED = 9"])
    assert configuration.call_with_bound(job.Job) == job.Job(
        model_dir="out/x", seed=9, rungs=("unsupervised",)
    )


def test_a_flag_binds_what_the_file_imports_but_does_not_bind(file):
    configuration.parse(files=[file], bindings=[*GIVEN, "report.run.title = 'mine'"])
    assert configuration.bound(report.run) == {"title": "mine"}


def test_a_rung_is_a_scope(file):
    configuration.parse(files=[file], bindings=GIVEN)
    full = configuration.bound(quantize.run)["objective"]
    rung = configuration.bound(quantize.run, scope="unsupervised")["objective"]
    assert (full.contrastive, rung.contrastive) == (0.5, 0.0)
    assert (full.commitment, rung.commitment) == (1.0, 1.0)
    assert configuration.description(full)["contrastive"] == 0.5


def test_a_setting_that_earlier_records_lack_is_told_where_it_is_no_default():
    training = Training(epochs=1, batch_size=8, learning_rate=0.1)
    as_before = configuration.description(training)
    assert as_before["held_out"] == 0.0 and "matmul_precision" not in as_before
    precise = dataclasses.replace(training, matmul_precision="highest")
    assert configuration.description(precise) == as_before | {"matmul_precision": "highest"}


def test_the_saved_configuration_can_be_read_again(file, tmp_path):
    configuration.parse(files=[file], bindings=GIVEN)
    saved = tmp_path / "config.gin"
    saved.write_text(configuration.text())
    before = configuration.bound(quantize.run, scope="unsupervised")
    configuration.parse(files=[str(saved)], bindings=[])
    assert configuration.bound(quantize.run, scope="unsupervised") == before
    assert configuration.call_with_bound(job.Job).model_dir == "out/x"


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        pytest.param(
            [],
            r"gin value MODEL_DIR is REQUIRED and not given; add --gin.MODEL_DIR=VALUE",
            id="not given",
        ),
        pytest.param(
            ["MODLE_DIR = 'x'"],
            r"macro MODLE_DIR is not used .*did you mean MODEL_DIR\?",
            id="unknown macro",
        ),
        pytest.param(
            [*GIVEN, "quantize.ran.seed = 1"], r"--gin flag: .*quantize.ran", id="unknown function"
        ),
        pytest.param([*GIVEN, "job.Job.sede = 1"], r"--gin flag: .*sede", id="unknown field"),
        pytest.param([*GIVEN, "SEED = [1"], r"--gin flag: ", id="not Python"),
        pytest.param(
            [*GIVEN, "losses.QuantizerObjective.temprature = 1"],
            r"--gin flag: .*temprature",
            id="unknown argument",
        ),
    ],
)
def test_a_wrong_binding_is_named_in_one_line(file, bindings, message):
    with pytest.raises(InputError, match=message) as caught:
        configuration.parse(files=[file], bindings=bindings)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match="gin file nowhere.gin does not exist"):
        configuration.parse(files=["nowhere.gin"], bindings=[])


def test_an_argument_without_a_value_names_its_binding(tmp_path):
    path = tmp_path / "run.gin"
    path.write_text(
        FILE.replace("  learning_rate = 0.1\n", "")
        .replace("  seed = %SEED\n", "")
        .replace("SEED = 3\n", "")
    )
    configuration.parse(files=[str(path)], bindings=GIVEN)
    with pytest.raises(InputError, match="learning_rate"):
        configuration.bound(quantize.run)
    with pytest.raises(InputError, match=r"gin binding job.Job.seed is missing"):
        configuration.call_with_bound(job.Job)


@pytest.mark.parametrize("name", ["demo", "esci", "kuaisearch", "tables"])
def test_the_run_files_bind_every_stage(name):
    bindings = [
        "MODEL_DIR = 'out'",
        *(["DATA_DIR = 'data'"] if name in ("esci", "kuaisearch") else []),
        *(["ITEMS = 'i.csv'", "JUDGEMENTS = 'j.csv'"] if name == "tables" else []),
    ]
    configuration.parse(files=[f"gin/runs/{name}.gin"], bindings=bindings)
    rungs = configuration.call_with_bound(job.Job).rungs
    for stage in STAGES:
        bound = configuration.bound(stage.function)
        shared = {"layout": None, "seed": 0, "sid_rungs": rungs, "halves": ()}
        configuration.check_complete(stage.function, bound | shared)


# Parameters of google/t5-v1_1-*, with their 32,128 tokens.
T5_1_1 = {
    "small": 76_961_152,
    "base": 247_577_856,
    "large": 783_150_080,
    "xl": 2_849_757_184,
}


@pytest.mark.parametrize("size", T5_1_1)
def test_sizes_of_t5_have_as_many_parameters_as_the_originals(size):
    configuration.parse(
        files=["gin/runs/demo.gin", f"gin/models/t5_{size}.gin"], bindings=GIVEN, search_paths=[]
    )
    bound = configuration.bound(generate.run)
    config = dataclasses.replace(bound["config"], text_vocab_size=32_125, sid_sizes=(1, 1, 1))
    shapes = jax.eval_shape(lambda: init_params(config, seed=0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == T5_1_1[size]
    assert bound["training"].optimizer == "adafactor"


def test_alignment_is_read_after_the_file_of_a_run():
    files = ["gin/runs/demo.gin", "gin/models/aligned.gin"]
    configuration.parse(files=files, bindings=GIVEN, search_paths=[])
    bound = configuration.bound(generate.run)
    generate.STAGE.check({"generate": bound})
    described = configuration.description(bound["alignment"])
    assert described["reward"] == {"": "JudgedGains"}
    assert (described["samples"], described["training"]["held_out"]) == (8, 0.1)
