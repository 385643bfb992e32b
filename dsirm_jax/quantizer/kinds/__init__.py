"""What a quantizer can be: one file a kind, each a dataclass that gin binds."""
