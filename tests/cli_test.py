import os
import subprocess
import sys

import pytest

from dsirm_jax import cli, job

STAGES = (
    *("prepare", "encode", "quantize", "generate"),
    *("features", "match", "relevance", "report", "run"),
    *("assign", "predict-sids", "score", "ablate", "compare", "import-t5", "compile"),
    *("export", "verify-bundle", "update-bundle", "serve"),
)


def run_cli(*arguments):
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "dsirm_jax", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )


@pytest.mark.parametrize("arguments", [("--help",), *((stage, "--help") for stage in STAGES)])
def test_help_needs_no_heavy_library(arguments):
    done = run_cli(*arguments)
    assert done.returncode == 0
    assert f"dsirm {arguments[0] if len(arguments) == 2 else 'STAGE'}" in done.stdout
    for heavy in ("jax", "tensorflow", "seqio", "pyarrow", "sklearn", "gin", "flax"):
        assert f" {heavy}\n" not in done.stderr


def test_every_stage_is_a_command():
    assert job.COMMANDS == STAGES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: dsirm"),
        (["quantise"], "unknown stage 'quantise'; the stages are prepare, encode"),
        (["--gin_file=x.gin"], "name a stage first"),
        (["run"], "no --gin_file given"),
        (["run", "--gin_file=missing.gin"], "gin file missing.gin does not exist"),
        (["run", "--gin_fil=x.gin"], "Unknown command line flag 'gin_fil'"),
        (["run", "--gin_file=gin/runs/demo.gin", "--gin.MODEL_DIR"], "a value is missing"),
        (["run", "--gin_file=gin/runs/demo.gin"], "gin value MODEL_DIR is REQUIRED"),
        (
            ["run", "--gin_file=gin/runs/demo.gin", "--gin.MODLE_DIR='x'"],
            "macro MODLE_DIR is not used",
        ),
        (["run", "--gin_file=gin/runs/demo.gin", "extra"], "unexpected argument 'extra'"),
        (["run", "--gin_file=gin/runs/demo.gin", "--query=x"], "Unknown command line flag 'query'"),
        (["predict-sids", "--query=red shoe"], "no --gin_file given"),
        (["import-t5", "--to=out"], "flag --from"),
        (["verify-bundle"], "name one bundle: dsirm verify-bundle DIR"),
        (["verify-bundle", "nowhere"], "nowhere/manifest.json: no such file"),
        (["update-bundle", "nowhere"], "nothing to add: give --items=FILE"),
        (["serve"], "flag --bundle"),
        (["serve", "--bundle=out", "--port=70000"], "flag --port=70000"),
        (
            ["compile", "--gin_file=gin/models/tiny.gin"],
            "gin binding ahead.Target.topology is missing",
        ),
        (["compile", "--gin_file=gin/tpu/v5e_8.gin", "--step=report"], "flag --step=report"),
        (["compile", "--gin_file=gin/tpu/v5e_8.gin", "--topology=v5e"], "topology 'v5e': give"),
        (["run", "--gin_file=gin/runs/demo.gin", "--profile_steps=5"], "--profile_steps=5: give"),
        (["score", "--gin_file=gin/runs/demo.gin"], "flag --pairs"),
        (["compare", "out/a"], "name two finished MODEL_DIRs"),
        (["compare", "nowhere/a", "nowhere/b"], "nowhere/a/relevance/predictions.parquet: no such"),
        (["import-t5", "--from=nowhere", "--to=nowhere/t5"], "nowhere/spiece.model: no such file"),
    ],
)
def test_wrong_usage_gives_one_line_and_code_2(arguments, message, capsys):
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.out + printed.err
    assert "Traceback" not in printed.err
    if arguments:
        assert printed.err.count("\n") == 1


def test_a_process_left_alone_says_so_and_ends_at_once(monkeypatch, capsys):
    def lost(*args, **kwargs):
        raise ValueError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer\nmore")

    monkeypatch.setattr(cli, "_run", lost)
    with pytest.raises(ValueError, match="Gloo"):  # a process that stands alone has another trouble
        cli.main(["run"])
    monkeypatch.setattr(cli.processes, "several", lambda: True)
    monkeypatch.setattr(cli.processes, "leave", sys.exit)
    with pytest.raises(SystemExit) as left:
        cli.main(["run"])
    assert left.value.code == 75
    said = capsys.readouterr().err
    assert "another process of this job is gone (UNKNOWN: Gloo all-reduce failed" in said
    assert "go on from the last checkpoint" in said and said.count("\n") == 1
