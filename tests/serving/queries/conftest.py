import numpy as np
import pytest

from dsirm_jax.serving.bundle.contents import open_bundle
from dsirm_jax.serving.queries.values import Values
from tests.serving.queries import stand_in


@pytest.fixture(scope="module")
def bundle(made):
    return open_bundle(made)


@pytest.fixture(scope="module")
def values(bundle):
    return Values.of(bundle)


@pytest.fixture(scope="module")
def rows(bundle, values):
    """Keys and values of the queries that the bundle caches, by their texts."""
    return {
        text: (values.key(text), values.value(text, np.frombuffer(record, values.record)[0]))
        for text, record in bundle.catalogue.cached_queries()
    }


@pytest.fixture
def server():
    with stand_in.stand_in() as server:
        yield server
