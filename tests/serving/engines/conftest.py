"""A run of a small shop."""

import numpy as np
import pytest

from tests.serving.engines.shop import BEAMS, ITEMS, LEVELS, write_run


@pytest.fixture
def beams():
    """SIDs of three queries, none of the last; the second's probabilities are next to nothing."""
    random = np.random.default_rng(0)
    sids = random.integers(0, 4, (2, BEAMS, LEVELS))
    probabilities = random.dirichlet(np.ones(BEAMS), 2)
    probabilities[1] *= 1e-5
    return [*zip(sids, probabilities, strict=True), (np.empty((0, LEVELS), int), np.empty(0))]


@pytest.fixture
def sids():
    return np.random.default_rng(1).integers(0, 4, (ITEMS, LEVELS))


@pytest.fixture
def layout(tmp_path, sids, beams):
    return write_run(tmp_path / "run", sids=sids, beams=beams)


@pytest.fixture
def vectors():
    found = np.random.default_rng(2).normal(size=(ITEMS, 4)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)
