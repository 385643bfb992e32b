"""Dense and SID features to the probability that an item is relevant to a query."""

from dsirm_jax.lazy import submodules

__getattr__, __dir__ = submodules(__name__)
