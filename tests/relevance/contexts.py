"""What groups of features look at, for tests that give them one part of it."""

import numpy as np

from dsirm_jax.relevance.digests import ItemDigests, QueryDigests
from dsirm_jax.relevance.features.group import PairContext, PairTexts
from dsirm_jax.relevance.terms import ItemTexts

FIELDS = ("query_vectors", "item_vectors", "surroundings", "texts")


def pair_context(*, query_index, item_index, item_row=None, **fields):
    """Returns a context of pairs in which what is not given is None."""
    return PairContext(
        query_index=query_index,
        item_index=item_index,
        item_row=item_index if item_row is None else item_row,
        **dict.fromkeys(FIELDS) | {"numbers": {}} | fields,
    )


def text_context(*, query_row, item_row, queries, items, statistics=None):
    """Returns a context of texts: all pieces of them, or all terms, as both sides have them.

    Args:
      query_row: row of `queries` of each pair; each query has one.
      item_row: row of `items` of each pair.
      queries: `{"pieces": ...}` or `{"terms": ...}`.
      items: likewise.
      statistics: of pieces.
    """
    nothing = {"pieces": None, "terms": None}
    texts = PairTexts(QueryDigests(**nothing | queries), ItemDigests(**nothing | items), statistics)
    context = pair_context(query_index=query_row, item_index=item_row, texts=texts)
    np.testing.assert_array_equal(context.query_row, query_row)
    return context


def item_texts(texts):
    """Returns items of which nothing but a title is known."""
    nothing = [None] * len(texts)
    return ItemTexts(text=texts, title=texts, brand=nothing, colour=nothing)
