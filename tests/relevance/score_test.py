from __future__ import annotations

import subprocess
import sys

import numpy as np

from dsirm_jax.relevance.score import mean_of_halves


def test_the_halves_that_have_not_seen_a_query_are_averaged():
    found = [np.array([[0.1, 0.9], [0.2, 0.8], [0.4, 0.6]]), np.array([[0.5, 0.5]] * 3)]
    where = np.array([[True, False, True], [False, True, True]])
    mean = mean_of_halves(found, where=where)
    np.testing.assert_allclose(mean, [[0.1, 0.9], [0.5, 0.5], [0.45, 0.55]], rtol=1e-6)
    of_one = mean_of_halves([part[:, 0] for part in found], where=where)
    np.testing.assert_allclose(of_one, [0.1, 0.5, 0.45], rtol=1e-6)


def test_serving_needs_no_library_of_training():
    code = (
        "import sys, dsirm_jax.relevance.score, dsirm_jax.relevance.compute\n"
        "print([m for m in ('sklearn', 'optax', 'orbax', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
