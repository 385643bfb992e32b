"""The identifier itself, with no learning in it: codes, trie, prefix features."""

from dsirm_jax.lazy import submodules

__getattr__, __dir__ = submodules(__name__)
