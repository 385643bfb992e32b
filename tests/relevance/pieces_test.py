from __future__ import annotations

from dsirm_jax.relevance.pieces import pieces_of

ITEMS = ["red shoe", "red red bag", "blue shoe size 10", "Leather wallet"]


def test_texts_are_as_long_as_they_have_pieces(processor):
    digested = pieces_of(ITEMS, processor)
    assert digested.lengths.tolist() == [
        len(of) for of in processor.encode([t.lower() for t in ITEMS])
    ]
