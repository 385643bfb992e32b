from __future__ import annotations

import subprocess
import sys


def test_serving_needs_no_library_of_training():
    code = (
        "import sys, dsirm_jax.relevance.score, dsirm_jax.relevance.features\n"
        "print([m for m in ('sklearn', 'optax', 'orbax', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
