"""The gin file of a run may name this package alone; everything else is refused before it runs."""

import sys

import gin
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.run import configuration, job
from dsirm_jax.stages import encode

HEAD = """from __gin__ import dynamic_registration
from dsirm_jax.run import job
from dsirm_jax.stages import encode
MODEL_DIR = 'out/then'
job.Job.model_dir = %MODEL_DIR
job.Job.seed = 3
job.Job.rungs = ()
"""
MODULE = """from pathlib import Path
MARK = Path(__file__).with_name('mark')
MARK.write_text('imported')
def mark(text='called'):
    MARK.write_text(text)
    return text
"""


@pytest.fixture(autouse=True)
def clean():
    yield
    gin.clear_config(clear_constants=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run of a stranger's, and beside it his module, which leaves a mark when it is imported."""
    (tmp_path / "run/prepare").mkdir(parents=True)
    (tmp_path / "run/prepare/stage.json").write_text("{}")
    (tmp_path / "stranger.py").write_text(MODULE)
    (tmp_path / "mine.py").write_text(MODULE)  # gin knows one function of a name in a process
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("stranger", None)
    sys.modules.pop("mine", None)


def parse(folder, text, *, bindings=(), allowed=()):
    file = folder / "run/config.gin"
    file.write_text(text)
    configuration.parse(files=[str(file)], bindings=bindings, allowed=allowed)


@pytest.mark.parametrize(
    ("lines", "number", "reason"),
    [
        pytest.param(
            "import os\n", 8, "runs code of os; if you trust it add --allow=os", id="import"
        ),
        pytest.param("import os as job\n", 8, "--allow=os", id="import under one of our names"),
        pytest.param(
            "from stranger import mark\n", 8, "--allow=stranger.mark", id="from another module"
        ),
        pytest.param("import stranger\n", 8, "--allow=stranger", id="another module"),
        pytest.param(
            "X = 1\nimport dsirm_jax_evil\n", 9, "--allow=dsirm_jax_evil", id="a longer name"
        ),
        pytest.param("from dsirm_jax import __main__\n", 8, "is private", id="the command line"),
        pytest.param("include 'gin/runs/demo.gin'\n", 8, "includes no other", id="include"),
        pytest.param(
            "from dsirm_jax.io import files\nencode.run.encoder = @files.os.system()\n",
            9,
            "runs code of os;",
            id="a call through a module of ours",
        ),
        pytest.param(
            "from dsirm_jax.io import files\nfiles.os.system.command = 'x'\n",
            9,
            "runs code of os;",
            id="a binding through a module of ours",
        ),
        pytest.param(
            "from dsirm_jax.io import files\nfiles.os.system:\n  command = 'x'\n",
            9,
            "runs code of os;",
            id="a block through a module of ours",
        ),
        pytest.param(
            "import dsirm_jax.io.files\n"
            "encode.run.encoder = {\n  'a': [(1, @x/y/dsirm_jax.io.files.os.system())]}\n",
            10,
            "runs code of os;",
            id="a call in a container, with scopes",
        ),
        pytest.param(
            "from dsirm_jax.io import files\nX = @files.Path()\nencode.run.encoder = %X\n",
            9,
            "runs code of pathlib",
            id="a class that a module of ours imports, by a macro",
        ),
        pytest.param(
            "from dsirm_jax.io import files\nencode.run.encoder = @files.Path\n",
            9,
            "runs code of pathlib",
            id="not called here",
        ),
        pytest.param(
            "from dsirm_jax.io import files\n"
            "encode.run.encoder = @files.write_text()\nfiles.write_text.text = 'x'\n",
            9,
            "calls nothing else",
            id="a function of ours that writes",
        ),
        pytest.param(
            "from dsirm_jax.ingestion.readers import tables\n"
            "encode.run.encoder = @tables.Tables.read()\n",
            9,
            "Tables is no module",
            id="a method",
        ),
        pytest.param(
            "encode.run.encoder = @encode.run.__globals__()\n",
            8,
            "encode.run is no module",
            id="an attribute of a function",
        ),
        pytest.param(
            "encode.run.encoder = @encode.__builtins__.get()\n", 8, "private", id="builtins"
        ),
        pytest.param(
            "encode.run.encoder = @gin.singleton()\ngin.singleton.constructor = @job.Job\n",
            8,
            "gin is not imported",
            id="a builtin of gin",
        ),
        pytest.param(
            "X = '''\nimport stranger\n'''\nencode.run.encoder = @stranger.mark()\n",
            11,
            "stranger is not imported",
            id="imported in a quoted text",
        ),
    ],
)
def test_what_runs_code_is_refused_with_its_line(folder, lines, number, reason):
    with pytest.raises(InputError) as caught:
        parse(folder, HEAD + lines)
    line = (HEAD + lines).split("\n")[number - 1].strip()
    assert str(caught.value).startswith(f"{folder}/run/config.gin:{number}: {line!r}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / "mark").exists()
    assert "stranger" not in sys.modules


def test_without_dynamic_registration_names_of_other_files_are_not_reached(folder):
    (folder / "own.gin").write_text("import stranger\n")
    (folder / "run/config.gin").write_text("mark.text = 'called'\n")
    with pytest.raises(InputError, match="config.gin:1: .*mark is not imported above"):
        configuration.parse(
            files=[str(folder / "own.gin"), str(folder / "run/config.gin")], bindings=[]
        )
    assert not (folder / "mark").exists()


def test_an_import_in_a_quoted_text_is_none(folder):
    text = HEAD + "encode.run.encoder = '''\nimport stranger\n'''\n"
    parse(folder, text, bindings=["job.Job.seed = 5"])
    assert configuration.bound(encode.run)["encoder"] == "\nimport stranger\n"
    assert configuration.bound(job.Job)["seed"] == 5
    assert not (folder / "mark").exists()


def test_a_file_of_the_users_own_that_includes_it_is_held_to_the_same(folder):
    (folder / "run/config.gin").write_text(HEAD + "import stranger\n")
    (folder / "own.gin").write_text(f"include '{folder}/run/config.gin'\n")
    with pytest.raises(InputError, match=r"config.gin:8: 'import stranger'"):
        configuration.parse(files=[str(folder / "own.gin")], bindings=[])
    assert not (folder / "mark").exists()


def test_what_the_user_allows_is_called(folder):
    text = HEAD + "import stranger\nencode.run.encoder = @stranger.mark()\n"
    parse(folder, text, allowed=["stranger"])
    assert (folder / "mark").read_text() == "imported"
    assert configuration.bound(encode.run)["encoder"] == "called"
    with pytest.raises(InputError, match="--allow=pathlib"):
        parse(folder, text.replace(".mark()", ".Path()"), allowed=["stranger"])


def test_a_file_or_flag_of_the_users_own_may_name_anything(folder):
    own = folder / "own.gin"
    own.write_text(HEAD + "import mine\nencode.run.encoder = @mine.mark()\n")
    configuration.parse(files=[str(own)], bindings=["mine.mark.text = 'flag'"])
    assert configuration.bound(encode.run)["encoder"] == "flag"


def test_what_a_file_binds_is_read_without_an_import(folder):
    (folder / "run/config.gin").write_text(
        HEAD + "import stranger\nencode.run.encoder = @stranger.mark()\n"
    )
    bindings = configuration.bindings(folder / "run/config.gin")
    assert bindings["encode.run.encoder"] == "@stranger.mark()"
    assert not (folder / "mark").exists()


OF_VERSION_0_2 = """from __gin__ import dynamic_registration
from dsirm_jax import job
{}
job.Job.model_dir = 'out'
"""


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("import stranger", id="an import"),
        pytest.param("X = @job.os.system()", id="a call through a module that has moved"),
    ],
)
def test_a_file_of_version_0_2_is_held_to_the_same(folder, line):
    with pytest.raises(InputError, match=r"config.gin in the names of today:\d: "):
        parse(folder, OF_VERSION_0_2.format(line))
    assert not (folder / "mark").exists()


@pytest.mark.parametrize("name", ["ablate", "demo", "kinds"])
def test_what_a_run_writes_is_read_again(folder, name):
    files = ["gin/runs/demo.gin", f"gin/runs/{name}.gin"]
    configuration.parse(files=files, bindings=["MODEL_DIR = 'out/then'"])
    text = configuration.text()
    parse(folder, text)
    # A long path has a line of its own.
    again = configuration.text().replace("= \\\n    '", "= '")
    assert again == text.replace("'out/then'", f"'{folder}/run'")
