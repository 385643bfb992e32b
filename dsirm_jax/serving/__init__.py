"""What a finished run becomes to be served: one folder, and what answers from it.

    from dsirm_jax.serving import Scorer, ScorerSettings

Each name is imported when it is first used, so that no command waits for JAX.
"""

from dsirm_jax.io.lazy import public

__getattr__, __dir__ = public(
    __name__,
    {
        "Branch": "scorer.answers",
        "Bundle": "bundle.contents",
        "Candidate": "scorer.answers",
        "Item": "scorer.answers",
        "Overloaded": "scorer.batching",
        "QuerySids": "scorer.answers",
        "Retrieved": "scorer.answers",
        "Scored": "scorer.answers",
        "Scorer": "scorer.scorer",
        "ScorerSettings": "scorer.settings",
        "open_bundle": "bundle.contents",
    },
)
