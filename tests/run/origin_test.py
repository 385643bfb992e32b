"""Which gin files are those of a run or bundle, and that a run lies where its file does."""

from pathlib import Path

import gin
import pytest

from dsirm_jax.run import configuration, job, origin

LITERAL = """
from __gin__ import dynamic_registration
from dsirm_jax.run import job
job.Job.model_dir = 'out/then'
"""
MACRO = LITERAL.replace("'out/then'", "%MODEL_DIR") + "MODEL_DIR = 'out/then'\n"
BOTH = LITERAL + "MODEL_DIR = 'out/then'\njob.Job.previous = %MODEL_DIR\n"


@pytest.fixture(autouse=True)
def clean():
    yield
    gin.clear_config(clear_constants=True)


@pytest.fixture
def run(tmp_path):
    for stage in ("prepare", "ablate"):
        (tmp_path / f"out/run/{stage}").mkdir(parents=True)
        (tmp_path / f"out/run/{stage}/stage.json").write_text("{}")
        (tmp_path / f"out/run/{stage}/config.gin").write_text(MACRO)
    (tmp_path / "out/run/config.gin").write_text(MACRO)
    return tmp_path / "out/run"


def bound(*files, bindings=()):
    configuration.parse(files=[*map(str, files)], bindings=bindings)
    return configuration.bound(job.Job)["model_dir"]


@pytest.mark.parametrize(
    ("made", "file", "expected"),
    [
        pytest.param("prepare/stage.json", "config.gin", True, id="beside the folders of stages"),
        pytest.param("stage.json", "config.gin", True, id="beside a stage's record"),
        pytest.param("prepare/stage.json", "mine.gin", False, id="another name"),
        pytest.param("notes.txt", "config.gin", False, id="no stage"),
        pytest.param("catalogue-0001/a", "config.gin", False, id="no manifest"),
        pytest.param("manifest.json", "x/mine.gin", False, id="another manifest"),
    ],
)
def test_the_file_of_a_run(tmp_path, made, file, expected):
    for name in (made, file):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert origin.is_of_run(tmp_path / file) == expected
    (tmp_path / "link.gin").symlink_to(tmp_path / file)
    assert origin.is_of_run(tmp_path / "link.gin") == expected


def test_any_file_in_a_bundle(tmp_path):
    (tmp_path / "catalogue-0001").mkdir()
    (tmp_path / "manifest.json").write_text("{}")
    assert origin.is_of_run(tmp_path / "model/t5.gin")
    assert origin.model_dir(tmp_path / "config.gin") is None


@pytest.mark.parametrize("folder", ["", "ablate/"], ids=["of the run", "of a stage"])
@pytest.mark.parametrize("text", [MACRO, LITERAL, BOTH], ids=["macro", "literal", "both"])
def test_a_run_lies_where_its_file_does(run, tmp_path, monkeypatch, folder, text):
    (run / f"{folder}config.gin").write_text(text)
    assert bound(run / f"{folder}config.gin") == str(run)
    monkeypatch.chdir(tmp_path)
    assert bound(f"out/run/{folder}config.gin") == "out/run"
    run.rename(tmp_path / "moved")
    assert bound(f"moved/{folder}config.gin") == "moved"
    monkeypatch.chdir(tmp_path / "moved")
    assert bound(f"{folder}config.gin") == "."
    monkeypatch.chdir(tmp_path / "moved" / folder)
    assert Path(bound("config.gin")).resolve() == tmp_path / "moved"


def test_a_flag_or_a_later_file_says_otherwise(run, tmp_path):
    (tmp_path / "later.gin").write_text("MODEL_DIR = 'out/later'")
    assert bound(run / "config.gin", tmp_path / "later.gin") == "out/later"
    assert bound(tmp_path / "later.gin", run / "config.gin") == str(run)
    assert bound(run / "config.gin", bindings=["MODEL_DIR = 'out/flag'"]) == "out/flag"
    (run / "config.gin").write_text(LITERAL)
    assert bound(run / "config.gin", bindings=["job.Job.model_dir = 'out/job'"]) == "out/job"


def test_a_copy_that_lies_in_no_run_means_what_it_says(run, tmp_path):
    (tmp_path / "config.gin").write_text((run / "config.gin").read_text())
    assert bound(tmp_path / "config.gin") == "out/then"


def test_a_stage_of_a_rung_lies_deeper(tmp_path):
    folder = tmp_path / "out/run/ablation/unsupervised/quantize"
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text('{"stage": "ablation/unsupervised/quantize"}')
    (folder / "config.gin").write_text(MACRO)
    assert bound(folder / "config.gin") == str(tmp_path / "out/run")
