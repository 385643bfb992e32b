import threading
from types import SimpleNamespace

import pytest

from dsirm_jax.serving import Scorer, ScorerSettings
from dsirm_jax.serving.bundle.contents import open_bundle
from dsirm_jax.serving.scorer.generation import generate


@pytest.fixture(scope="module")
def bundle(made):
    return open_bundle(made)


@pytest.fixture(scope="module")
def scorer(bundle):
    with Scorer(bundle, settings=ScorerSettings(deadline=600.0)) as scorer:
        yield scorer


@pytest.fixture
def held(bundle):
    """A scorer whose generator waits until it is let go."""
    gate = SimpleNamespace(reached=threading.Semaphore(0), go=threading.Event())

    def run(*given):
        gate.reached.release()
        gate.go.wait(timeout=3600)
        return generate(*given)

    scorer = Scorer(bundle, settings=ScorerSettings(deadline=600.0, waiting=2, batch=1), run=run)
    yield scorer, gate
    gate.go.set()
    scorer.close()
