from __future__ import annotations

import subprocess
import sys

from tests.serving import tiny

FORK = """
import os, sys, warnings
from dsirm_jax.serving import Scorer

# JAX warns of forks, rightly.
warnings.simplefilter("ignore")
bundle, query = sys.argv[1:]
with Scorer.open(bundle, trust=True) as scorer:
    child = os.fork()
    if not child:
        refusals = []
        for call in (
            lambda: scorer.score(query, ["item 1"]),
            lambda: scorer.query_sids(query),
            lambda: scorer.candidates(query),
        ):
            try:
                call()
            except RuntimeError as error:
                refusals.append(str(error))
        scorer.close()
        asked = [f"opened in process {os.getppid()}", f"its child {os.getpid()}"]
        told = [all(part in refusal for part in asked) for refusal in refusals]
        os._exit(0 if told == [True] * 3 else 1)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), scorer.score(query, ["item 1"]).source)
"""


def test_a_scorer_opened_before_a_fork_refuses_in_the_child_and_answers_in_the_parent(made):
    """It used to wait for threads that a fork leaves behind."""
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(made), tiny.QUERIES[0]],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stdout.split() == ["0", "cached"], done.stderr
