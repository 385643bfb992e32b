"""Query text to semantic identifiers: a network under a trie constraint.

It can be used alone, without gin: docs/generator.md has an example. What this package names is
imported when it is used.
"""

from dsirm_jax.io.lazy import public

__getattr__, __dir__ = public(
    __name__,
    {
        "FittedGenerator": "fitted",
        "GeneratorObjective": "losses",
        "fit_generator": "fitting",
        "load": "fitted",
        "predict_sids": "predict",
        "save": "fitted",
        "score_pairs": "score",
    },
    kinds="architectures",
)
