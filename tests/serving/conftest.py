import pytest

from tests.serving import stand_in, tiny


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A bundle, to be copied by whoever changes it."""
    return tiny.make(tmp_path_factory.mktemp("made") / "bundle")


@pytest.fixture(scope="module")
def address():
    """Where a stand-in is served, in a process of its own."""
    with stand_in.served() as (_, address):
        yield address
