"""What `import dsirm_jax` gives, and what it costs."""

import json
import subprocess
import sys

import pytest

import dsirm_jax

MEASURED = """
import json, sys, time
before, started = set(sys.modules), time.process_time()
import dsirm_jax
seconds, after = time.process_time() - started, set(sys.modules)
listed = dir(dsirm_jax)
brought = {name.partition(".")[0] for name in after - before} - sys.stdlib_module_names
print(json.dumps({"seconds": seconds, "brought": sorted(brought), "listed": listed}))
"""


def test_the_import_is_light():
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], check=True, capture_output=True, text=True
    )
    measured = json.loads(done.stdout)
    assert measured["brought"] == ["dsirm_jax"]
    assert measured["seconds"] < 0.05
    assert set(dsirm_jax.__all__) <= set(measured["listed"])


def test_rooms_and_their_modules_need_no_import_of_their_own():
    script = """
import dsirm_jax
assert dsirm_jax.metrics.classification.calibration_bin([0.5]).tolist() == [7]
assert "ranking" in dir(dsirm_jax.metrics)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", dsirm_jax.__all__)
def test_every_public_name_is_there(name):
    assert getattr(dsirm_jax, name) is not None


def test_what_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'dsirm_jax' has no attribute 'nothing'"):
        dsirm_jax.nothing  # noqa: B018
    with pytest.raises(AttributeError, match="'dsirm_jax.metrics' has no attribute 'nothing'"):
        dsirm_jax.metrics.nothing  # noqa: B018
