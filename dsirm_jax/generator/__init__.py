"""Query text to semantic identifiers: a T5 encoder-decoder under a trie constraint."""

from dsirm_jax.lazy import submodules

__getattr__, __dir__ = submodules(__name__)
