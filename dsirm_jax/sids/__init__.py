"""The identifier itself, with no learning in it: codes, trie, prefix features."""

from dsirm_jax.io.lazy import public

__getattr__, __dir__ = public(__name__)
