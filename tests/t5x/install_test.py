import importlib.util
import sys

import pytest

from dsirm_jax.io.errors import InputError


def test_without_t5x_the_error_says_how_to_install_it(monkeypatch):
    name = "dsirm_jax.generator.t5x_model"
    monkeypatch.setitem(sys.modules, "t5x", None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(InputError, match="t5x.*pip install.*--no-deps.*airio@.*jestimator@") as e:
        importlib.import_module(name)
    assert "\n" not in str(e.value)


def test_nothing_else_imports_the_adapter():
    from pathlib import Path

    files = [*Path("dsirm_jax").rglob("*.py")]
    assert [file.name for file in files if "t5x_model" in file.read_text()] == []
