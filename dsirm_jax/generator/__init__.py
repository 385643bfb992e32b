"""Query text to semantic identifiers: a T5 encoder-decoder under a trie constraint."""
