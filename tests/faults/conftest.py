import pytest

from tests.serving import tiny


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A bundle, to be copied by whoever changes it."""
    return tiny.make(tmp_path_factory.mktemp("made") / "bundle")
