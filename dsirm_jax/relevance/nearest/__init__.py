"""Nearest vectors by cosine: a protocol, and a file a kind of search."""
