"""What sets up the environment of `make`, with stand-ins for interpreters, pip and uv."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = ("bash", "cat", "cp", "dirname", "ls", "make", "mkdir", "mktemp", "rm", "touch")
PYTHON = """#!/usr/bin/env bash
echo "${0##*/} $*" >>"$CALLS"
case "$1 $2" in
  "-c import sys;"*) echo "VERSION $0" ;;
  "-c import "*) [[ $2 != *"${LACKS:-nothing}"* ]] ;;
  "-m venv")
    mkdir -p "${@: -1}/bin"
    touch "${@: -1}/pyvenv.cfg"
    cp "$0" "${@: -1}/bin/python" ;;
  "-m ensurepip") touch "${0%/*}/pip" ;;
  "-m pip")
    [[ -f ${0%/*}/pip ]] || exit 1
    [[ $3 == --version ]] && exit
    [[ ${*: -1} != uv ]] || cp "$UV" "${0%/*}/uv" || exit 1
    exit "${PIP_EXIT:-0}" ;;
esac
"""
UV = """#!/usr/bin/env bash
echo "uv $*" >>"$CALLS"
[[ $1 == --version ]] && exit
[[ $1 == python ]] && exec cat "${FOUND:-/nowhere}"
exit "${UV_EXIT:-0}"
"""
SHIM = "#!/usr/bin/env bash\nexit 127\n"


class Checkout:
    """A checkout and a PATH with nothing on it but what a test puts there."""

    def __init__(self, folder):
        self.root, self.bin, self.calls = folder / "checkout", folder / "bin", folder / "calls"
        self.brought = folder / "uv"
        self.root.mkdir()
        self.bin.mkdir()
        for name in (".ci/run", "Makefile", "launch/environment.sh"):
            (self.root / name).parent.mkdir(exist_ok=True)
            shutil.copy(name, self.root / name)
        for name in ("setup.py", "constraints.txt"):
            (self.root / name).touch()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))

    @property
    def venv(self):
        return self.root / ".venv"

    @property
    def installed(self):
        return self.venv / "installed-test"

    def add(self, name, text):
        path = self.bin / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def python(self, name, version):
        return self.add(name, PYTHON.replace("VERSION", version))

    def run(self, *command, **settings):
        self.calls.write_text("")
        env = {"PATH": str(self.bin), "CALLS": str(self.calls), "UV": str(self.brought)}
        return subprocess.run(
            command or ("launch/environment.sh", ".venv", "test"),
            cwd=self.root,
            env=env | settings,
            capture_output=True,
            text=True,
            timeout=3600,
        )

    def called(self, *words):
        """Returns the calls that have all of the words."""
        calls = self.calls.read_text().splitlines()
        return [call for call in calls if all(word in call for word in words)]

    def version(self):
        return (self.venv / "bin/python").read_text().split('echo "3')[1].split()[0]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def refusal(done):
    assert done.returncode != 0 and not done.stdout
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("version", ["2.7.18", "3.10.13", "3.14.2"])
@pytest.mark.parametrize("given", [{}, {"PYTHON": "python3"}], ids=["found", "named"])
def test_an_interpreter_that_will_not_do_is_named(checkout, version, given):
    path = checkout.python("python3", version)
    line = refusal(checkout.run(**given))
    assert "Python 3.11, 3.12 or 3.13 is needed; found: " in line
    assert f"Python {version} ({path})" in line
    assert not checkout.venv.exists()


def test_make_says_so_before_anything_else(checkout):
    checkout.python("python3.14", "3.14.0")
    done = checkout.run("make", "test", "PYTHON=python3.14")
    assert done.returncode != 0
    assert "found: Python 3.14.0" in done.stderr.splitlines()[0]
    assert "found: no python3.12" in checkout.run("make", "demo", PYTHON="python3.12").stderr


def test_an_interpreter_that_does_not_run_is_passed_over(checkout):
    shim = checkout.add("python3", SHIM)
    assert f"found: {shim} does not run, no python3.13" in refusal(checkout.run())
    checkout.add("python3.13", SHIM)
    checkout.python("python3.12", "3.12.1")
    assert checkout.run().returncode == 0
    assert checkout.version() == ".12.1"


def test_python3_comes_first_where_it_will_do(checkout):
    checkout.python("python3", "3.11.2")
    checkout.python("python3.13", "3.13.0")
    assert checkout.run().returncode == 0
    assert checkout.version() == ".11.2"


def test_interpreters_of_pyenv_and_uv_are_found_by_name(checkout):
    checkout.add("python3.13", SHIM)
    root = checkout.bin / "pyenv root"
    checkout.add("pyenv", f"#!/usr/bin/env bash\necho '{root}'\n")
    checkout.python(root / "versions/3.13.0t/bin/python", "3.13.0")
    checkout.python(root / "versions/3.13.1/bin/python", "3.13.1")
    assert checkout.run(PYTHON="python3.13").returncode == 0
    assert checkout.version() == ".13.1"
    found = checkout.bin / "found"
    found.write_text(str(checkout.python("elsewhere/python3.12", "3.12.9")) + "\n")
    checkout.add("uv", UV)
    assert checkout.run(PYTHON="python3.12", FOUND=str(found)).returncode == 0
    assert checkout.version() == ".12.9"


def test_what_is_installed_stays(checkout):
    checkout.python("python3", "3.12.1")
    checkout.add("uv", UV)
    assert checkout.run().returncode == 0
    for given in ({}, {"PYTHON": "python3"}):
        done = checkout.run(**given)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert not checkout.called("-m") and not checkout.called("uv pip")
    (checkout.bin / "python3").unlink()
    assert checkout.run().returncode == 0


@pytest.mark.parametrize("file", ["setup.py", "constraints.txt"])
def test_a_change_of_what_is_needed_installs_again(checkout, file):
    checkout.python("python3", "3.12.1")
    checkout.add("uv", UV)
    checkout.run()
    (checkout.venv / "own").touch()
    later = checkout.installed.stat().st_mtime + 10
    os.utime(checkout.root / file, (later, later))
    assert checkout.run().returncode == 0
    assert checkout.called("uv pip install") and (checkout.venv / "own").exists()


@pytest.mark.parametrize("kind", ["another", "gone", "old", "moved", "link"])
def test_an_environment_that_will_not_do_is_made_anew(checkout, kind):
    checkout.python("python3", "3.12.1")
    checkout.add("uv", UV)
    checkout.run()
    (checkout.venv / "own").touch()
    given = {}
    if kind == "another":
        checkout.python("python3.13", "3.13.0")
        given["PYTHON"] = "python3.13"
    elif kind == "gone":
        (checkout.venv / "bin/python").unlink()
        (checkout.venv / "bin/python").symlink_to("/nowhere/python")
    elif kind == "old":
        checkout.python(checkout.venv / "bin/python", "3.10.1")
    elif kind == "moved":
        checkout.root = checkout.root.rename(checkout.root.with_name("elsewhere"))
    else:
        shutil.rmtree(checkout.venv)
        checkout.venv.symlink_to("/nowhere")
    done = checkout.run(**given)
    assert done.returncode == 0, done.stderr
    assert checkout.version() == (".13.0" if given else ".12.1")
    assert checkout.installed.exists() and not (checkout.venv / "own").exists()


def test_a_folder_of_something_else_is_left(checkout):
    checkout.python("python3", "3.12.1")
    checkout.venv.mkdir()
    (checkout.venv / "bin").mkdir()
    checkout.python(checkout.venv / "bin/python", "3.12.1")
    assert ".venv is no virtual environment" in refusal(checkout.run())
    assert (checkout.venv / "bin/python").exists()
    shutil.rmtree(checkout.venv / "bin")
    checkout.add("uv", UV)
    assert checkout.run().returncode == 0


def test_uv_installs_where_there_is_one(checkout):
    checkout.python("python3", "3.12.1")
    checkout.add("uv", UV)
    assert checkout.run(LACKS="ensurepip").returncode == 0
    assert checkout.called("uv pip install") == [
        "uv pip install --quiet --compile-bytecode --python .venv/bin/python"
        " --constraint constraints.txt --editable .[test]"
    ]
    assert not checkout.called("-m pip") and not checkout.called("-m ensurepip")


def test_pip_installs_where_uv_cannot(checkout):
    checkout.python("python3", "3.12.1")
    checkout.add("uv", UV)
    assert checkout.run(UV_EXIT="1").returncode == 0
    assert checkout.called("uv pip install")
    assert checkout.called("-m pip install", "--editable .[test]")
    checkout.add("uv", SHIM)
    shutil.rmtree(checkout.venv)
    assert checkout.run().returncode == 0
    assert checkout.called("-m pip install", " uv")
    assert checkout.called("-m pip install", "--constraint constraints.txt --editable .[test]")


def test_pip_brings_uv(checkout):
    checkout.python("python3", "3.12.1")
    checkout.brought.write_text(UV)
    checkout.brought.chmod(0o755)
    assert checkout.run().returncode == 0
    assert checkout.called("-m pip install", "--constraint constraints.txt uv")
    assert checkout.called("uv pip install", "--editable .[test]")
    assert not checkout.called("-m pip install", "--editable")


def test_what_failed_is_not_taken_for_whole(checkout):
    checkout.python("python3", "3.12.1")
    assert checkout.run(PIP_EXIT="1").returncode != 0
    assert checkout.venv.exists() and not checkout.installed.exists()
    assert checkout.run().returncode == 0
    assert checkout.installed.exists()
    later = checkout.installed.stat().st_mtime + 10
    os.utime(checkout.root / "setup.py", (later, later))
    assert checkout.run(PIP_EXIT="1").returncode != 0
    assert not checkout.installed.exists()


def test_a_python_without_pip_is_told_what_it_lacks(checkout):
    checkout.python("python3", "3.12.1")
    line = refusal(checkout.run(LACKS="ensurepip"))
    assert "python3 cannot import venv,ensurepip: install the package python3.12-venv" in line
    assert not checkout.venv.exists()


def test_a_dry_run_changes_nothing(checkout):
    checkout.python("python3", "3.12.1")
    done = checkout.run("launch/environment.sh", "--dry_run", ".venv", "test,tpu")
    assert done.returncode == 0 and not checkout.venv.exists()
    lines = done.stdout.splitlines()
    assert lines[0].endswith("python3' '-m' 'venv' '--without-pip' '.venv'")
    assert "'--editable' '.[test,tpu]'" in lines[-1]
    assert not checkout.called("-m")


def test_goals_at_once_install_once(checkout):
    checkout.python("python3", "3.12.1")
    checkout.add("uv", UV)
    for tool in ("ruff", "dsirm"):
        checkout.add(tool, SHIM)
    checkout.run("make", "--jobs=4", "--keep-going", "demo", "test", "lint")
    assert len(checkout.called("-m venv")) == len(checkout.called("uv pip install")) == 1


def made(checkout):
    return [call.removeprefix("make ") for call in checkout.called("make ")]


def test_ci_skips_the_interpreters_that_are_not_here(checkout):
    for tool in ("chromium", "make"):
        (checkout.bin / tool).unlink(missing_ok=True)
        checkout.add(tool, '#!/usr/bin/env bash\necho "${0##*/} $*" >>"$CALLS"\n')
    checkout.python("python3.11", "3.11.7")
    done = checkout.run(".ci/run")
    assert done.returncode == 0, done.stderr
    assert "no python3.13 on this machine" in done.stdout
    on = "PYTHON=python3.11 VENV=.venv-3.11"
    assert made(checkout) == [f"lint {on}", f"test {on}", f"proof {on}", f"docs {on}"]
    checkout.python("python3.13", "3.13.0")
    done = checkout.run(".ci/run")
    assert "on this machine" not in done.stdout
    on = "PYTHON=python3.13 VENV=.venv-3.13"
    assert made(checkout)[4] == f"test {on} CASES=--one-case"
    assert made(checkout)[5].startswith(f"proof {on} CASES=--one-case TESTS=")
    assert checkout.run(".ci/run", "python3.12").returncode == 1
    assert not made(checkout)


def test_the_tests_that_ci_names_are_there():
    named = Path(".ci/run").read_text("utf-8").split('TESTS="')[1].split('"')[0]
    for path, _, test in (name.partition("::") for name in named.replace("\\", "").split()):
        tests = Path(path).read_text("utf-8")
        assert "mark.slow" in tests and f"def {test}" in tests
