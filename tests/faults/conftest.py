"""What all tests of faults copy: a finished run, and a bundle."""

import pytest

from tests.job.conftest import run
from tests.serving import tiny

__all__ = ["run"]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A bundle, to be copied by whoever changes it."""
    return tiny.make(tmp_path_factory.mktemp("made") / "bundle")
