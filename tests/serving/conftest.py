import pytest

from tests.serving.stand_in import served


@pytest.fixture(scope="module")
def address():
    """Where a stand-in is served, in a process of its own."""
    with served() as (_, address):
        yield address
