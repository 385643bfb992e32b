import os
import subprocess
import sys

import pytest

from dsirm_jax import cli, job

STAGES = (
    *("prepare", "encode", "quantize", "generate"),
    *("features", "match", "relevance", "report", "run"),
    *("assign", "predict-sids", "score", "ablate", "compare", "import-t5"),
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
        (["score", "--gin_file=gin/runs/demo.gin"], "flag --pairs"),
        (["compare", "out/a"], "name two finished MODEL_DIRs"),
        (["compare", "nowhere/a", "nowhere/b"], "nowhere/a/relevance/predictions.parquet: no such"),
        (["import-t5", "--from=nowhere", "--to=out"], "nowhere/spiece.model: no such file"),
    ],
)
def test_wrong_usage_gives_one_line_and_code_2(arguments, message, capsys):
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.out + printed.err
    assert "Traceback" not in printed.err
    if arguments:
        assert printed.err.count("\n") == 1
