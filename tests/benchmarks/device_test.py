"""`make device` on the CPUs that there are: its parts, and what becomes of one that fails."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import compilation

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# What an image with JAX for its accelerator may lack, and rivals, which take minutes.
ABSENT = (
    *("clu", "seqio", "tensorflow", "tensorflow_datasets", "tensorflow_text", "tensorboardX"),
    *("beartype", "duckdb", "gin", "ibis", "lmdb", "torch"),
)
PARTS = {
    *("golden", "sids", "bundle", "assign", "quantizer", "search", "features", "encode", "t5"),
}


@pytest.fixture
def device(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import device

    return device


def case(name, *, ours=1.0, other=None):
    ratio = None if other is None else other / ours
    return {"case": name, "ours": ours, "other": other, "unit": "ms"} | dict.fromkeys(
        ("ratio", "low", "high"), ratio
    )


def sound(sizes):
    yield case("sound/figure", ours=2.0, other=1.0)


def equal(sizes):
    yield case("equal/difference", ours=1.0, other=1.0)


def apart(sizes):
    yield case("apart/difference", ours=1.01, other=1.0)


def broken(sizes):
    yield case("broken/before")
    raise RuntimeError("out of memory")


def endless(sizes):
    yield from ()
    time.sleep(3600)


def part(device, function, *, is_parity=False, share=0.99):
    name = function.__name__
    return device.Part(name=name, run=f"{__name__}.{name}", share=share, is_parity=is_parity)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_parts_that_fail_stop_no_other_one_and_keep_what_they_had_found(device, tmp_path, capsys):
    parts = [part(device, endless, share=0.02), part(device, broken), part(device, sound)]
    file = tmp_path / "cases.jsonl"
    assert device.run(parts, seconds=300.0, quick=True, json=file) == 0
    assert [each["case"] for each in read(file)] == ["broken/before", "sound/figure"]
    said = capsys.readouterr().out
    assert "| sound/figure | 2 | 1 | ms | 0.5 |" in said
    assert "broken FAILED: it ended with exit status 1" in said
    assert "endless FAILED: it took more than its 3 s" in said
    assert "sound FAILED" not in said


@pytest.mark.parametrize("function, status", [(equal, 0), (apart, 1), (broken, 1)])
def test_parity_decides_the_exit_status(device, tmp_path, function, status):
    parts = [part(device, function, is_parity=True)]
    assert device.run(parts, seconds=600.0, quick=True, json=None) == status


@pytest.mark.parametrize(
    "given, said",
    [
        (["--part=none"], "--part=none: give one of golden, sids, bundle"),
        (["--bundle=/no/such"], "--bundle=/no/such: no such folder"),
    ],
    ids=["part", "bundle"],
)
def test_what_there_is_not_is_named(device, capsys, given, said):
    with pytest.raises(SystemExit, match="2"):
        device.main(given)
    assert said in capsys.readouterr().err


def quick_run(tmp_path, *arguments):
    """Runs the script where `ABSENT` cannot be imported."""
    blocked = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n"
    (tmp_path / "sitecustomize.py").write_text(blocked)
    path = os.pathsep.join([str(tmp_path), str(BENCHMARKS.parent)])
    done = subprocess.run(
        [
            *(sys.executable, str(BENCHMARKS / "device.py"), "--quick", "--minutes=40"),
            *(f"--json={tmp_path / 'cases.jsonl'}", *arguments),
        ],
        env=os.environ | {"PYTHONPATH": path, "XLA_FLAGS": compilation.QUICK},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout, done.stdout + done.stderr
    cases = read(tmp_path / "cases.jsonl")
    for each in cases:
        assert [*each] == ["case", "ours", "other", "unit", "ratio", "low", "high"]
        assert each["ours"] >= 0 and (each["other"] is None) == (each["ratio"] is None)
        assert f"| {each['case']} | " in done.stdout
    return cases


@pytest.mark.slow
def test_golden_arrays_and_features_need_no_tensorflow(tmp_path):
    found = {each["case"]: each for each in quick_run(tmp_path, "--part=golden", "--part=features")}
    names = ("t5", "t5_1_1", "mt5", "bert/mean", "bert/cls")
    assert found.keys() == {*(f"golden/{name}" for name in names), "features/1e3"}
    assert all(0 < found[f"golden/{name}"]["ours"] < 0.5 for name in names)


@pytest.mark.slow
def test_all_parts_run_on_a_cpu_without_tensorflow(tmp_path):
    found = {each["case"]: each for each in quick_run(tmp_path)}
    assert {name.partition("/")[0] for name in found} == PARTS
    # Of a CPU and itself nothing differs.
    assert found["sids/different"]["ours"] == found["bundle/other_beams"]["ours"] == 0


@pytest.mark.slow
def test_a_bundle_is_compared_with_what_the_cpu_answers(device, tmp_path):
    from tests.serving import tiny  # processes of parts import this module, too

    bundle = tiny.make(tmp_path / "bundle")
    (of_bundle,) = [part for part in device.parts(bundle) if part.name == "bundle"]
    file = tmp_path / "cases.jsonl"
    assert device.run([of_bundle], seconds=1200.0, quick=True, json=file) == 0
    names = ("other_beams", "log_probs", "probability", "vector")
    assert [each["case"] for each in read(file)] == [f"bundle/{name}" for name in names]
