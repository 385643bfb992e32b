from pathlib import Path

import gin
import pytest

from dsirm_jax.run import configuration, translation
from dsirm_jax.run.job import Job
from dsirm_jax.stages import STAGES

OLD = Path("tests/run/golden/demo-0.2.gin")


@pytest.fixture(autouse=True)
def clean():
    yield
    gin.clear_config(clear_constants=True)


def test_a_configuration_of_a_run_of_before_binds_what_it_bound():
    configuration.parse(files=[str(OLD)], bindings=["generate.run.beams = 7"])
    before = {stage.name: configuration.bound(stage.function) for stage in STAGES}
    job = configuration.call_with_bound(Job)
    configuration.parse(
        files=["gin/runs/demo.gin"], bindings=["MODEL_DIR = 'out/demo'", "generate.run.beams = 7"]
    )
    assert job == configuration.call_with_bound(Job)
    for stage in STAGES:
        assert before[stage.name] == configuration.bound(stage.function), stage.name
    scope = "unsupervised"
    quantize = next(stage.function for stage in STAGES if stage.name == "quantize")
    assert configuration.bound(quantize, scope=scope)["objective"].contrastive == 0


def test_the_log_names_a_file_that_is_translated(caplog):
    configuration.parse(files=[str(OLD)], bindings=[])
    assert f"gin file {OLD}: names of version 0.2, read as those of today" in caplog.messages


def test_what_is_translated_is_of_today_and_stays():
    text = translation.translated(OLD.read_text())
    assert not translation.is_old(text)
    assert translation.translated(text) == text


def test_blocks_scopes_references_and_names_beside():
    old = """
from __gin__ import dynamic_registration
from dsirm_jax import ablation
from dsirm_jax import pipeline
from dsirm_jax.data import tasks
from dsirm_jax.generator import losses
from dsirm_jax.quantizer import losses as q
include 'gin/models/tiny.gin'
K = (1, 'a')
rung/pipeline.generate:
  objective = @rung/losses.Objective()  # beside
  beams = %K
losses.Objective.z_loss = 0.0
q.Objective.contrastive = 0.5
ablation.Ladder.seeds = (0, 1)
tasks.Curriculum.title_rate = 0.5
"""
    assert translation.is_old(old)
    assert translation.translated(old).splitlines() == [
        "from __gin__ import dynamic_registration",
        "from dsirm_jax.data import tasks",
        "from dsirm_jax.generator import losses",
        "from dsirm_jax.quantizer import losses as q",
        "from dsirm_jax.stages import generate",
        "from dsirm_jax.stages import ablate",
        "include 'gin/models/tiny.gin'",
        "K = (1, 'a')",
        "rung/generate.run.objective = @rung/losses.GeneratorObjective()",
        "rung/generate.run.beams = %K",
        "losses.GeneratorObjective.z_loss = 0.0",
        "q.QuantizerObjective.contrastive = 0.5",
        "ablate.Ladder.seeds = (0, 1)",
        "tasks.Curriculum.title_rate = 0.5",
    ]


@pytest.mark.parametrize("file", sorted(Path("gin").rglob("*.gin")), ids=str)
def test_the_files_of_today_are_not_old(file):
    assert not translation.is_old(file.read_text("utf-8"))


def test_old_and_new_are_compared_under_the_names_of_today():
    bindings = configuration.bindings(OLD)
    assert bindings["generate.run.beams"] == "10"
    assert bindings["unsupervised/losses.QuantizerObjective.contrastive"] == "0.0"


def test_kinds_of_quantizers_that_were_texts():
    old = """
from __gin__ import dynamic_registration
from dsirm_jax.quantizer import model
model.QuantizerConfig:
  codebook_sizes = (8, 8)
  latent_dim = 4
  hidden_dim = 5
rung/model.QuantizerConfig.kind = 'hierarchical_kmeans'
"""
    lines = translation.translated(old).splitlines()
    assert lines == [
        "from __gin__ import dynamic_registration",
        "from dsirm_jax.quantizer import model",
        "from dsirm_jax.quantizer import config",
        "from dsirm_jax.quantizer.kinds import rq_vae",
        "from dsirm_jax.quantizer.kinds import hierarchical_kmeans",
        "config.QuantizerConfig.codebook_sizes = (8, 8)",
        "rq_vae.RqVae.latent_dim = 4",
        "rq_vae.RqVae.hidden_dim = 5",
        "rung/config.QuantizerConfig.kind = @hierarchical_kmeans.HierarchicalKmeans()",
        "config.QuantizerConfig.kind = @rq_vae.RqVae()",
    ]
    named = translation.translated(old + "model.QuantizerConfig.kind = 'residual_kmeans'")
    assert named.splitlines()[-1] == (
        "config.QuantizerConfig.kind = @residual_kmeans.ResidualKmeans()"
    )
