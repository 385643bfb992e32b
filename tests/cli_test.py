import asyncio
import gc
import logging
import os
import subprocess
import sys

import pytest

from dsirm_jax import cli
from dsirm_jax.commands import COMMANDS

STAGES = (
    *("check", "prepare", "encode", "quantize", "generate"),
    *("features", "match", "relevance", "report", "run"),
    *(
        "assign",
        "predict-sids",
        "score",
        "ablate",
        "compare",
        "import-model",
        "import-t5",
        "compile",
    ),
    *("export", "verify-bundle", "update-bundle", "serve"),
)


def run_cli(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "dsirm_jax", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()} | environment,
    )


@pytest.mark.parametrize(
    "arguments",
    [("--help",), *((stage, "--help") for stage in STAGES)],
    ids=["dsirm", *STAGES],
)
def test_help_needs_no_heavy_library(arguments):
    done = run_cli(*arguments)
    assert done.returncode == 0
    assert f"dsirm {arguments[0] if len(arguments) == 2 else 'COMMAND'}" in done.stdout
    for heavy in ("jax", "tensorflow", "seqio", "pyarrow", "sklearn", "gin", "flax"):
        assert f" {heavy}\n" not in done.stderr


def test_what_the_terminals_encoding_lacks_is_replaced():
    done = run_cli("compare", "--help", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "dsirm compare" in done.stdout and "?" in done.stdout and done.stdout.isascii()


def test_every_stage_is_a_command():
    assert tuple(COMMANDS) == STAGES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param([], "usage: dsirm", id="nothing"),
        pytest.param(
            ["quantise"],
            "unknown command 'quantise'; the commands are check, prepare, encode",
            id="unknown stage",
        ),
        pytest.param(["--gin_file=x.gin"], "name a command first", id="no stage"),
        pytest.param(["run"], "no --gin_file given", id="no gin file"),
        pytest.param(
            ["run", "--gin_file=missing.gin"],
            "gin file missing.gin does not exist",
            id="missing gin file",
        ),
        pytest.param(
            ["run", "--gin_fil=x.gin"], "Unknown command line flag 'gin_fil'", id="unknown flag"
        ),
        pytest.param(
            ["run", "--gin_file=gin/runs/demo.gin", "--gin.MODEL_DIR"],
            "a value is missing",
            id="binding without value",
        ),
        pytest.param(
            ["run", "--gin_file=gin/runs/demo.gin"],
            "gin value MODEL_DIR is REQUIRED",
            id="binding not given",
        ),
        pytest.param(
            ["run", "--gin_file=gin/runs/demo.gin", "--gin.MODLE_DIR='x'"],
            "macro MODLE_DIR is not used",
            id="unknown macro",
        ),
        pytest.param(
            ["run", "--gin_file=gin/runs/demo.gin", "extra"],
            "unexpected argument 'extra'",
            id="extra argument",
        ),
        pytest.param(
            ["run", "--gin_file=gin/runs/demo.gin", "--query=x"],
            "Unknown command line flag 'query'",
            id="flag of another stage",
        ),
        pytest.param(
            ["predict-sids", "--query=red shoe"],
            "no --gin_file given",
            id="predict-sids without gin file",
        ),
        pytest.param(["import-model", "--to=out"], "flag --from", id="import-model without --from"),
        pytest.param(
            ["verify-bundle"],
            "name one bundle: dsirm verify-bundle DIR",
            id="verify-bundle without folder",
        ),
        pytest.param(
            ["verify-bundle", "nowhere"],
            "nowhere/manifest.json: no such file",
            id="verify-bundle of no folder",
        ),
        pytest.param(
            ["update-bundle", "nowhere"],
            "nothing to do: give --items=FILE",
            id="update-bundle with nothing",
        ),
        pytest.param(["serve"], "flag --bundle", id="serve without bundle"),
        pytest.param(
            ["serve", "--bundle=out", "--port=70000"], "flag --port=70000", id="port too large"
        ),
        pytest.param(
            ["compile", "--gin_file=gin/models/tiny.gin"],
            "gin binding compile.Target.topology is missing",
            id="compile without topology",
        ),
        pytest.param(
            ["compile", "--gin_file=gin/tpu/v5e_8.gin", "--step=report"],
            "flag --step=report",
            id="compile of a stage that has no step",
        ),
        pytest.param(
            ["compile", "--gin_file=gin/tpu/v5e_8.gin", "--topology=v5e"],
            "topology 'v5e': give",
            id="topology without size",
        ),
        pytest.param(
            ["run", "--gin_file=gin/runs/demo.gin", "--profile_steps=5"],
            "--profile_steps=5: give",
            id="profile_steps without range",
        ),
        pytest.param(
            ["score", "--gin_file=gin/runs/demo.gin"], "flag --pairs", id="score without pairs"
        ),
        pytest.param(
            ["check", "--items=nowhere.csv"],
            "name --items and --judgements",
            id="check without judgements",
        ),
        pytest.param(["compare", "out/a"], "name two finished MODEL_DIRs", id="compare of one run"),
        pytest.param(
            ["compare", "nowhere/a", "nowhere/b"],
            "nowhere/a/relevance/predictions.parquet: no such",
            id="compare of no runs",
        ),
        pytest.param(
            ["import-t5", "--from=nowhere", "--to=nowhere/t5"],
            "nowhere: no such file or folder",
            id="import-t5 of no folder",
        ),
        pytest.param(
            ["import-model", "--from=nowhere", "--to=out/new", "--prompt=find"],
            "--prompt is 'find'; give a text that has {query} in it once",
            id="import-model with a prompt without a query",
        ),
    ],
)
def test_wrong_usage_gives_one_line_and_code_2(arguments, message, capsys):
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.out + printed.err
    assert "Traceback" not in printed.err
    if arguments:
        assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["--gin_file", "missing.gin", "run"],
            "gin file missing.gin does not exist",
            id="value of --gin_file before the command",
        ),
        pytest.param(
            ["predict-sids", "--query", "help"], "no --gin_file given", id="help as a value"
        ),
        pytest.param(
            ["predict-sids", "--query", "--help"], "no --gin_file given", id="--help as a value"
        ),
        pytest.param(["predict-sids", "--query=-h"], "no --gin_file given", id="-h as a value"),
        pytest.param(
            ["compare", "compare", "nowhere"],
            "compare/relevance/predictions.parquet: no such file",
            id="compare of a folder named compare",
        ),
        pytest.param(
            ["--force", "run", "run"], "unexpected argument 'run'", id="command after itself"
        ),
        pytest.param(["run", "help"], "unexpected argument 'help'", id="help after the command"),
        pytest.param(
            ["verify-bundle", "nowhere", "--pairs=5"],
            "nowhere/manifest.json: no such file",
            id="folder before a flag",
        ),
    ],
)
def test_a_value_is_neither_a_command_nor_a_wish_for_help(arguments, message, capsys):
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err and not printed.out


@pytest.mark.parametrize(
    "arguments",
    [["help", "score"], ["-h", "score"], ["score", "x", "--help"]],
    ids=["help first", "-h first", "--help last"],
)
def test_help_is_printed_wherever_it_is_wanted(arguments, capsys):
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.startswith("dsirm score: a table of (query, item_id)")


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


def test_a_reader_that_has_enough_is_no_fault():
    process = subprocess.Popen(
        [sys.executable, "-m", "dsirm_jax", "relevance", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.communicate()[1] == b""
    assert process.returncode == 1


def test_another_broken_pipe_is_a_fault():
    program = (
        "from dsirm_jax import cli\n"
        "def lost(argv): raise BrokenPipeError('of a worker')\n"
        "cli._run = lost\n"
        "cli.main([])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.endswith("BrokenPipeError: of a worker\n")


def test_the_file_of_a_run_is_held_to_the_fence(tmp_path, capsys):
    (tmp_path / "report").mkdir()
    (tmp_path / "report/stage.json").write_text("{}")
    config = tmp_path / "config.gin"
    config.write_text("from __gin__ import dynamic_registration\nimport colorsys\n")
    arguments = ["report", f"--gin_file={config}"]
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == (
        f"dsirm: {config}:2: 'import colorsys': it runs code of colorsys; if you trust it add "
        "--allow=colorsys\n"
    )
    assert cli.main([*arguments, "--allow=wave,colorsys"]) == 2
    assert capsys.readouterr().err.startswith("dsirm: gin binding job.Job.seed is missing")
    assert "colorsys" in sys.modules


def test_a_folder_that_cannot_be_written_is_one_line_and_code_1(tmp_path, capsys):
    (tmp_path / "run").write_text("a file")
    flags = ["--gin_file=gin/runs/demo.gin", f"--gin.MODEL_DIR='{tmp_path}/run'"]
    assert cli.main(["prepare", *flags]) == 1
    assert capsys.readouterr().err == (
        f"dsirm: {tmp_path}/run/locks: Not a directory; move the file that is in the way, or name "
        "another place\n"
    )


@pytest.mark.parametrize(
    ("file", "said"),
    [
        pytest.param("/lib/orbax/checkpoint/serialization.py", [], id="orbax"),
        pytest.param("/lib/other/writes.py", ["Task exception was never retrieved"], id="another"),
    ],
)
def test_a_write_that_orbax_has_given_up_has_no_traceback_of_its_own(file, said, caplog):
    cli._set_up_logging(logging.INFO)
    scope = {}
    exec(compile("async def write():\n    raise ValueError('File too large')", file, "exec"), scope)
    loop = asyncio.new_event_loop()
    task = loop.create_task(scope["write"]())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    del task
    gc.collect()
    assert [line.getMessage().splitlines()[0] for line in caplog.records] == said
