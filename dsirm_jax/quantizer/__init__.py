"""Dense vectors to semantic identifiers: the query-bridged residual quantizer, and other kinds.

It can be used alone, without gin: docs/quantizer.md has an example. What this package names is
imported when it is used.
"""

from dsirm_jax.io.lazy import public

__getattr__, __dir__ = public(
    __name__,
    {
        "FittedQuantizer": "fitted",
        "QuantizerConfig": "config",
        "QuantizerObjective": "losses",
        "Training": "dsirm_jax.training.settings",
        "TrainingItems": "training_items",
        "Upkeep": "codebooks",
        "assign_vectors": "assign",
        "codebook_health": "dsirm_jax.metrics.codebook",
        "load": "fitted",
        "relative_error": "health",
        "save": "fitted",
        "train": "fitting",
    },
    kinds="kinds",
)
