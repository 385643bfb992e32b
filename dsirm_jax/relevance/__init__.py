"""Dense and SID features to the probability that an item is relevant to a query."""

from dsirm_jax.io.lazy import public

__getattr__, __dir__ = public(__name__)
