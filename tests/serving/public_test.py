"""`dsirm_jax.serving` names what users of a bundle import."""

import subprocess
import sys

import pytest

import dsirm_jax.serving


def test_every_public_name_is_there_and_no_other():
    classes = [name for name in dir(dsirm_jax.serving) if name[0].isupper()]
    assert classes == [
        *("Branch", "Bundle", "Candidate", "Item", "Overloaded", "QuerySids", "Retrieved"),
        *("Scored", "Scorer", "ScorerSettings"),
    ]
    for name in (*classes, "open_bundle"):
        assert getattr(dsirm_jax.serving, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Settings'"):
        _ = dsirm_jax.serving.Settings


def test_nothing_heavy_is_imported_before_a_name_is_used():
    code = "import sys, dsirm_jax.serving; print({'jax', 'numpy', 'fastapi'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
