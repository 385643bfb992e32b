"""What a quantizer is fitted to, read from the tables of a run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Int

from dsirm_jax.data.item_text import attribute, columns_of
from dsirm_jax.data.pairs import relevant_pairs
from dsirm_jax.data.product_type import ENGLISH
from dsirm_jax.data.schema import TRAIN
from dsirm_jax.data.title_types import TitleTypes
from dsirm_jax.data.vectors import any_known, read_categories, read_title_types, read_vectors
from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer.codebooks import category_codes
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.model import UNPINNED
from dsirm_jax.quantizer.training_items import UNKNOWN, TrainingItems

MOST_CLASSES = 1000

log = logging.getLogger(__name__)


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
    types: TitleTypes | None = None,
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
      types: how titles become categories where `known` are such; None: this catalogue says.
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
    by_title = False
    if config.pins:
        most = len(known) if only_known else config.codebook_sizes[0]
        categories = read_categories([str(items)], depth=config.pin_depth)
        by_title = config.title_language is not None and not any_known(categories)
        if by_title:
            types = types or read_title_types([str(items)], language=config.type_language)
            categories = read_categories([str(items)], depth=0, types=types)
        pinned, names = category_codes(categories, most=most, known=known)
        _say_what_pins(items, config, by_title=by_title, types=types, pinned=pinned, names=names)
    return TrainingItems(
        items=read_vectors(item_vectors, ids=item_ids, id_column="item_id", scratch=scratch),
        queries=read_vectors(query_vectors, ids=query_ids, id_column="query", scratch=scratch),
        pairs=relevant_pairs(judgements, split=TRAIN),
        pinned=pinned if names else None,
        names=names,
        types=types if by_title and names and types and types.language != ENGLISH else None,
        attributes=_classes(items, attributes, config=config) if attributes else None,
    )


def _say_what_pins(
    items: Path,
    config: QuantizerConfig,
    *,
    by_title: bool,
    types: TitleTypes | None,
    pinned: Int[np.ndarray, " item"],
    names: Sequence[str],
) -> None:
    """Says that titles name first codes, or that nothing does."""
    if by_title and types is not None and names:
        log.info(
            "%s: no category is read, so that first codes are pinned by product types of titles: "
            "%s of them, for %.1f %% of the items, such as %s; %s words that stand by any type are "
            "none. Bind QuantizerConfig.title_language = None to pin nothing",
            *(items, len(names), 100 * np.mean(pinned != UNPINNED), ", ".join(names[:5])),
            len(types.noise),
        )
    elif not by_title and not names and config.title_language is None:
        log.info(
            "%s: no item has a category, and QuantizerConfig.title_language is None, so that no "
            "first code is pinned; bind LANGUAGE = 'en' where titles are English",
            items,
        )


def _classes(
    items: Path, names: Sequence[str], *, config: QuantizerConfig
) -> Int[np.ndarray, "item attribute"]:
    """Returns the classes of items' attributes: of each its `MOST_CLASSES` commonest values."""
    wanted = [*dict.fromkeys(["title", *columns_of(names, known=pq.read_schema(items).names)])]
    rows = pq.read_table(items, columns=wanted).to_pylist()
    classes = []
    for name in names:
        values = [attribute(name, row, language=config.type_language) or None for row in rows]
        common = Counter(filter(None, values)).most_common(MOST_CLASSES)
        number = {value: place for place, (value, _) in enumerate(common)}
        classes.append(
            [UNKNOWN if value is None else number.get(value, UNKNOWN) for value in values]
        )
    return np.array(classes, np.int32).T
