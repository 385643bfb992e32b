"""Pytest collects the same tests whenever, wherever and in whatever process it does."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LATER = 400 * 24 * 60 * 60 + 3661  # seconds: another year, day, hour, minute and second
LONGEST = 100  # characters in brackets


class Clock:
    """A clock that is ahead; an object, since some libraries hold clocks as class attributes."""

    def __init__(self, clock, ahead):
        self.clock, self.ahead = clock, ahead

    def __call__(self):
        return self.clock() + self.ahead


class Collected:
    """A pytest plugin that keeps the tests' ids and the values that have no written id."""

    def __init__(self):
        self.ids, self.nameless, self.test = [], [], ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc):
        self.test = metafunc.definition.nodeid

    def pytest_make_parametrize_id(self, val, argname):
        named = getattr(val, "__name__", "<lambda>") != "<lambda>"
        if not named and not isinstance(val, str | int | float | None):
            self.nameless.append(f"{self.test}: {argname} = {val!r:.80}")

    def pytest_collection_finish(self, session):
        self.ids = [item.nodeid for item in session.items]


def collect(path, *, ahead):
    """What each process does."""
    time.time = Clock(time.time, ahead)
    time.time_ns = Clock(time.time_ns, ahead * 10**9)
    if ahead:
        cores = (os.cpu_count() or 1) + 3
        os.cpu_count = lambda: cores
        os.sched_getaffinity = lambda _: set(range(cores))
    found = Collected()
    options = ["--collect-only", "-qq", "-m", "", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
    code = pytest.main([*options, "-c", str(ROOT / "pyproject.toml"), str(ROOT / "tests")], [found])
    path.write_text(json.dumps({"code": code, "ids": found.ids, "nameless": found.nameless}))


def start(path, *, ahead, without=(), **changes):
    """Starts `collect` in a process of its own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTEST") and name not in without
    }
    with path.with_suffix(".txt").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.collection_test", str(path), str(ahead)],
            cwd=path.parent,
            env=kept | {"PYTHONPATH": str(ROOT)} | changes,
            stdout=said,
            stderr=subprocess.STDOUT,
        )


@pytest.fixture(scope="module")
def collections(tmp_path_factory):
    """Returns what was collected at two times by two processes that have little in common."""
    paths = [tmp_path_factory.mktemp(name) / "found.json" for name in ("now", "later")]
    plain = {"PYTHONHASHSEED": "1", "TZ": "UTC0", "LC_ALL": "C.UTF-8"}
    other = {"PYTHONHASHSEED": "2", "TZ": "JST-9", "LC_ALL": "C"}
    # Without a locale's own encoding Python would take UTF-8 all the same.
    other |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    started = [start(paths[0], ahead=0, **plain)]
    time.sleep(1.01)  # `Clock` does not reach all that reads the time
    started.append(start(paths[1], ahead=LATER, without=("HOME",), **other))
    codes = [process.wait() for process in started]
    said = [path.with_suffix(".txt").read_text(errors="replace")[-2000:] for path in paths]
    assert codes == [0, 0], "\n".join(said)
    found = [json.loads(path.read_text()) for path in paths]
    assert [each["code"] for each in found] == [0, 0], "\n".join(said)
    return found


@pytest.mark.slow
def test_the_same_tests_are_collected_at_another_time_and_with_another_hash_seed(collections):
    now, later = (found["ids"] for found in collections)
    assert any(test.startswith("tests/collection_test.py::") for test in now)
    differing = sorted(set(now) ^ set(later))
    assert not differing, "\n".join(differing)
    assert now == later


@pytest.mark.slow
def test_ids_are_written_out(collections):
    for found in collections:
        assert not found["nameless"], "\n".join(found["nameless"])


@pytest.mark.slow
def test_ids_of_all_tests_are_unique_short_and_plain(collections):
    check_ids(collections[0]["ids"])


def test_ids_of_the_tests_that_run_are_unique_short_and_plain(request):
    check_ids([item.nodeid for item in request.session.items])


def check_ids(ids):
    assert len(set(ids)) == len(ids)
    # Pytest writes what is not printable ASCII with a backslash.
    odd = [test for test in ids if not test.isascii() or "\\" in test]
    long = [test for test in ids if len(test.partition("[")[2]) > LONGEST]
    assert not odd + long, "\n".join(odd + long)


if __name__ == "__main__":
    collect(Path(sys.argv[1]), ahead=int(sys.argv[2]))
