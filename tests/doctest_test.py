"""The examples in docstrings give what they show."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path("dsirm_jax")
WITH_EXAMPLES = sorted(
    ".".join(path.with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text("utf-8")
)


class Finder(doctest.DocTestFinder):
    """Also finds functions behind a decorator of another module, such as a check of types."""

    def _from_module(self, module, object):
        return getattr(object, "__module__", None) == module.__name__


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner()
    for test in Finder(exclude_empty=True).find(module, name):
        runner.run(test)
    assert runner.tries == Path(module.__file__).read_text("utf-8").count(">>> ")
    assert runner.failures == 0


def test_there_are_examples_to_try():
    assert {"dsirm_jax.sids.codes", "dsirm_jax.metrics.ranking"} <= set(WITH_EXAMPLES)
