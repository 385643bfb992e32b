"""What a quantizer is fitted to, read from the tables of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Int

from dsirm_jax.data.item_text import attribute, columns_of
from dsirm_jax.data.pairs import relevant_pairs
from dsirm_jax.data.schema import TRAIN
from dsirm_jax.data.vectors import read_categories, read_vectors
from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer.codebooks import category_codes
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.training_items import UNKNOWN, TrainingItems

MOST_CLASSES = 1000


def read_training_items(
    *,
    items: Path,
    queries: Path,
    judgements: Path,
    item_vectors: Path,
    query_vectors: Path,
    config: QuantizerConfig,
    scratch: Path,
    known: Sequence[str] = (),
    only_known: bool = False,
    attributes: Sequence[str] = (),
) -> TrainingItems:
    """Reads what the quantizer is fitted to.

    Args:
      items: prepare's items table.
      queries: prepare's queries table.
      judgements: prepare's judgements table; only its training queries are used.
      item_vectors: dense vectors of the items.
      query_vectors: dense vectors of the queries.
      config: decides whether categories are pinned.
      scratch: folder of the temporary files that hold the vectors, memory-mapped.
      known: categories that have codes already and keep them, see `category_codes`.
      only_known: other categories get none.
      attributes: of items that the quantizer is to tell, see `item_text.attribute`.

    Returns:
      The items; their categories are those of the catalogue, up to the first level's size.

    Raises:
      InputError: there is no item, or a vector is missing.
    """
    item_ids = pq.read_table(items, columns=["item_id"])["item_id"]
    query_ids = pq.read_table(queries, columns=["query"])["query"]
    if not len(item_ids):
        raise InputError(f"{items}: no items; `dsirm quantize` requires at least one")
    pinned: Int[np.ndarray, " item"] | None = None
    names: tuple[str, ...] = ()
    if config.pins:
        pinned, names = category_codes(
            read_categories(
                [str(items)], depth=config.pin_depth, title_language=config.title_language
            ),
            most=len(known) if only_known else config.codebook_sizes[0],
            known=known,
        )
    return TrainingItems(
        items=read_vectors(item_vectors, ids=item_ids, id_column="item_id", scratch=scratch),
        queries=read_vectors(query_vectors, ids=query_ids, id_column="query", scratch=scratch),
        pairs=relevant_pairs(judgements, split=TRAIN),
        pinned=pinned if names else None,
        names=names,
        attributes=_classes(items, attributes, config=config) if attributes else None,
    )


def _classes(
    items: Path, names: Sequence[str], *, config: QuantizerConfig
) -> Int[np.ndarray, "item attribute"]:
    """Returns the classes of items' attributes: of each its `MOST_CLASSES` commonest values."""
    wanted = [*dict.fromkeys(["title", *columns_of(names, known=pq.read_schema(items).names)])]
    rows = pq.read_table(items, columns=wanted).to_pylist()
    classes = []
    for name in names:
        values = [attribute(name, row, language=config.title_language) or None for row in rows]
        common = Counter(filter(None, values)).most_common(MOST_CLASSES)
        number = {value: place for place, (value, _) in enumerate(common)}
        classes.append([number.get(value, UNKNOWN) for value in values])
    return np.array(classes, np.int32).T
