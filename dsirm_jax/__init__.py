"""Semantic identifiers for e-commerce relevance, in JAX."""

__version__ = "0.2.0"
