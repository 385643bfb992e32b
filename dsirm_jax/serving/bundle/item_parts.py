"""What a catalogue keeps of its items, made of tables of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.relevance import digests
from dsirm_jax.relevance.digests import CatalogueStatistics, ItemDigests, Reading
from dsirm_jax.relevance.terms import ItemTexts
from dsirm_jax.serving.bundle import store
from dsirm_jax.serving.bundle.stored_items import UNKNOWN, item_to_json

if TYPE_CHECKING:
    import pyarrow as pa
    from sentencepiece import SentencePieceProcessor


class ItemParts(NamedTuple):
    """All items of a catalogue, in the order of their numbers where nothing else is said.

    Attributes:
      statistics: what features know of all of them.
      ids: keys of ids and numbers of the items, in any order.
      stored: keys of numbers and what is stored of each item.
      numbers: the user's own of some items at a time, `[row, column]`.
      digests: of the texts of some items at a time.
      categories: number of each item's category path, `UNKNOWN` where it has none; paths are
        numbered as they occur.
      beside: folder of a catalogue of the first items, where `ids` and `stored` are those of the
        further ones alone.
    """

    statistics: CatalogueStatistics
    ids: Iterable[tuple[bytes, bytes]]
    stored: Iterable[tuple[bytes, bytes]]
    numbers: Iterable[Float[np.ndarray, "row column"]]
    digests: Iterable[ItemDigests]
    categories: Int[np.ndarray, " item"]
    beside: Path | None = None


def of_tables(
    rows: Callable[[], Iterator[pa.Table]],
    *,
    numbers: Sequence[str],
    processor: SentencePieceProcessor,
    language: str | None,
) -> ItemParts:
    """Returns the parts of items that tables hold.

    Args:
      rows: yields the items, in the order of their numbers, some at a time: columns
        `STORED_COLUMNS` and any others. Called more than once.
      numbers: names of the columns of numbers among those of the items.
      processor: SentencePiece.
      language: see `digests.Reading`.
    """
    statistics = statistics_of(rows(), processor=processor)
    reading = Reading(processor, statistics.names, language)
    return ItemParts(
        statistics=statistics,
        ids=numbered_ids(rows()),
        stored=stored_rows(rows()),
        numbers=(columns_of(table, numbers) for table in rows()),
        digests=(digests.digest_items(item_texts(table), reading) for table in rows()),
        categories=numbered_categories(rows(), known={}),
    )


def statistics_of(
    tables: Iterable[pa.Table], *, processor: SentencePieceProcessor
) -> CatalogueStatistics:
    """Returns what features know of all items of some tables."""
    nothing, texts = np.empty(0, int), map(item_texts, tables)
    statistics, _ = digests.catalogue_statistics(texts, wanted=nothing, processor=processor)
    return statistics


def item_texts(table: pa.Table) -> ItemTexts:
    """Returns what features read of items."""
    return ItemTexts(*(table[name].to_pylist() for name in ItemTexts._fields))


def numbered_ids(tables: Iterable[pa.Table], *, first: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Yields the key of each item's id, and its number; they rise from the first."""
    for number, item_id in enumerate(
        (item_id for table in tables for item_id in table["item_id"].to_pylist()), first
    ):
        yield store.key(item_id), store.number_bytes(number)


def stored_rows(tables: Iterable[pa.Table], *, first: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Yields the key of each item's number, and what is stored of it; numbers as `numbered_ids`."""
    for number, row in enumerate((row for table in tables for row in table.to_pylist()), first):
        yield store.number_bytes(number), item_to_json(row)


def columns_of(table: pa.Table, names: Sequence[str]) -> Float[np.ndarray, "row column"]:
    """Returns columns of numbers side by side, NaN where there is none."""
    import pyarrow as pa

    values = [table[name].cast(pa.float64()).to_numpy() for name in names]
    return np.array(values, np.float64).reshape(len(names), len(table)).T


def numbered_categories(
    tables: Iterable[pa.Table], *, known: dict[tuple[str, ...], int]
) -> Int[np.ndarray, " item"]:
    """Returns the number of each item's category path, `UNKNOWN` where it has none.

    Args:
      tables: of items, some at a time.
      known: numbers of paths, from 0; further ones are added as they occur.
    """
    paths = (path for table in tables for path in table["category"].to_pylist())
    return np.array(
        [known.setdefault(tuple(path), len(known)) if path else UNKNOWN for path in paths], np.int32
    )
