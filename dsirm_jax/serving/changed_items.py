"""The parts of a catalogue that changes: of items that stay they are those of the one before.

Texts are digested where they are new, and where they may name a brand or colour that the catalogue
did not know before or knows no more.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int

from dsirm_jax.relevance.digests import (
    CatalogueStatistics,
    ItemDigests,
    Reading,
    digest_items,
)
from dsirm_jax.relevance.pieces import PieceStatistics
from dsirm_jax.relevance.rows import places
from dsirm_jax.relevance.terms import ItemTexts, Names, name_of, names_in, term_key
from dsirm_jax.serving.bundle import item_parts, store
from dsirm_jax.serving.bundle.catalogue import ROWS_PER_BLOCK, BundleCatalogue
from dsirm_jax.serving.bundle.item_parts import ItemParts
from dsirm_jax.serving.bundle.stored_items import UNKNOWN, StoredItem, item_from_json
from dsirm_jax.serving.changes import Changes, in_blocks

if TYPE_CHECKING:
    import pyarrow as pa
    from sentencepiece import SentencePieceProcessor

SCANNED_ROWS = 1 << 16
"""Items whose terms are looked through at once."""
_name_of = functools.lru_cache(1 << 16)(name_of)


def parts(
    old: BundleCatalogue,
    changes: Changes,
    *,
    numbers: Sequence[str],
    processor: SentencePieceProcessor,
    language: str | None,
) -> ItemParts:
    """Returns what the changed catalogue keeps of its items, as if it were made of their tables.

    Args:
      old: the catalogue before.
      changes: what becomes of its items.
      numbers: names of the columns of numbers among those of the items.
      processor: SentencePiece.
      language: see `digests.Reading`.
    """
    kept, stay = changes.kept, int(changes.kept.sum())
    table = changes.new.table
    new = [table.slice(row, ROWS_PER_BLOCK) for row in range(0, len(table), ROWS_PER_BLOCK)]
    statistics = _statistics(old, changes, new, processor=processor)
    reading = Reading(processor, statistics.names, language)
    renamed = _renamed(old, before=old.statistics.names, after=statistics.names)
    of_new = (digest_items(item_parts.item_texts(rows), reading) for rows in new)
    of_kept = (old.numbers[rows] for rows in changes.staying())
    columns = (item_parts.columns_of(rows, numbers) for rows in new)
    ids = sorted(item_parts.numbered_ids(new, first=stay))
    stored = item_parts.stored_rows(new, first=stay)
    all_stay = stay == len(kept)  # under their numbers, so that files of theirs are copied whole
    return ItemParts(
        statistics=statistics,
        ids=ids if all_stay else heapq.merge(_ids(old, changes), ids),
        stored=stored if all_stay else itertools.chain(_stored(old, kept), stored),
        beside=old.folder if all_stay else None,
        numbers=itertools.chain(of_kept, columns),
        digests=itertools.chain(_digests(old, changes, renamed=renamed, reading=reading), of_new),
        categories=_categories(old, kept, new),
    )


def _ids(old: BundleCatalogue, changes: Changes) -> Iterator[tuple[bytes, bytes]]:
    """Yields keys and numbers of the items that stay, in the order of the keys."""
    for block in in_blocks(old.ids, rows=ROWS_PER_BLOCK):
        keys, values = zip(*block, strict=True)
        before = np.frombuffer(b"".join(values), ">u4")
        after = changes.number[before].tolist()
        for key, number, stays in zip(keys, after, changes.kept[before].tolist(), strict=True):
            if stays:
                yield key, store.number_bytes(number)


def _stored(old: BundleCatalogue, kept: Bool[np.ndarray, " item"]) -> Iterator[tuple[bytes, bytes]]:
    """Yields keys and what is stored of the items that stay."""
    for number, (_, value) in enumerate(itertools.compress(old.stored, kept)):
        yield store.number_bytes(number), value


def _digests(
    old: BundleCatalogue,
    changes: Changes,
    *,
    renamed: Int[np.ndarray, " renamed"],
    reading: Reading,
) -> Iterator[ItemDigests]:
    """Yields the digests of the items that stay, made anew where names are others."""
    for rows in changes.staying():
        first = 0
        for place in np.flatnonzero(np.isin(rows, renamed)).tolist():
            yield old.digests.take(rows[first:place])
            yield digest_items(_texts_of(old.items(rows[place : place + 1])), reading)
            first = place + 1
        yield old.digests.take(rows[first:])


def _texts_of(items: Sequence[StoredItem]) -> ItemTexts:
    columns = ([getattr(item, name) for item in items] for name in ItemTexts._fields)
    return ItemTexts(*columns)


def _categories(
    old: BundleCatalogue, kept: Bool[np.ndarray, " item"], new: Sequence[pa.Table]
) -> Int[np.ndarray, " item_afterwards"]:
    """Returns the number of each item's category path, as paths occur in the changed catalogue."""
    stay = old.categories[kept]
    there, first = np.unique(stay, return_index=True)
    first = np.sort(first[there != UNKNOWN])
    # The last one is that of `UNKNOWN`.
    after = np.full(old.categories.max(initial=UNKNOWN) + 2, UNKNOWN, np.int32)
    after[stay[first]] = np.arange(len(first))
    of_paths = old.items(np.flatnonzero(kept)[first])
    known = {item.category: number for number, item in enumerate(of_paths)}
    return np.concatenate([after[stay], item_parts.numbered_categories(new, known=known)])


def _statistics(
    old: BundleCatalogue,
    changes: Changes,
    new: Sequence[pa.Table],
    *,
    processor: SentencePieceProcessor,
) -> CatalogueStatistics:
    """Returns what features know of all items: what they knew, less what goes, and what comes."""
    more = item_parts.statistics_of(new, processor=processor)
    before, pieces = old.statistics.pieces, old.digests.pieces
    _, place = places(pieces.pieces.starts, np.flatnonzero(~changes.kept))
    less = np.bincount(pieces.pieces.values[place], minlength=len(before.with_piece))
    documents = int(changes.kept.sum()) + more.pieces.documents
    length = _length(before) - int(pieces.counts[place].sum()) + _length(more.pieces)
    return CatalogueStatistics(
        PieceStatistics(
            documents=documents,
            with_piece=before.with_piece - less + more.pieces.with_piece,
            mean_length=length / max(documents, 1),
        ),
        _names(old, changes.kept, new=more.names),
    )


def _length(statistics: PieceStatistics) -> int:
    """Returns the pieces of all documents."""
    return round(statistics.mean_length * statistics.documents)


def _names(old: BundleCatalogue, kept: Bool[np.ndarray, " item"], *, new: Names) -> Names:
    """Returns the names that items which stay or come have."""
    gone = _texts_of(old.items(np.flatnonzero(~kept)))
    of_gone = names_in(brands=gone.brand, colours=gone.colour)
    # That perhaps none has any more.
    brands, colours = (set(theirs - ours) for theirs, ours in zip(of_gone, new, strict=True))
    for _, value in itertools.compress(old.stored, kept):
        if not (brands or colours):
            break
        item = item_from_json(0, value)
        brands.discard(_name_of(item.brand))
        colours.discard(_name_of(item.colour))
    before = old.statistics.names
    return Names(before.brands - brands | new.brands, before.colours - colours | new.colours)


def _renamed(old: BundleCatalogue, *, before: Names, after: Names) -> Int[np.ndarray, " renamed"]:
    """Returns the items whose texts may have a name that came to be known, or is so no more."""
    lost, gained = list[int](), list[list[str]]()
    for kind, ours, theirs in zip(Names._fields, before, after, strict=True):
        lost += [term_key(kind, name) for name in ours - theirs]
        gained += [name.split() for name in theirs - ours]
    words = {word for name in gained for word in name}
    keys = {word: [term_key(kind, word) for kind in ("affirmed", "negated")] for word in words}
    wanted = [*lost, *itertools.chain.from_iterable(keys.values())]
    items = _items_with(old, np.unique(np.array(wanted, np.int64)))
    nobody = np.empty(0, np.int64)
    of_word = {
        word: np.concatenate([items.get(key, nobody) for key in of]) for word, of in keys.items()
    }
    found = [items.get(key, nobody) for key in lost]
    found += [functools.reduce(np.intersect1d, map(of_word.__getitem__, name)) for name in gained]
    return np.unique(np.concatenate([nobody, *found]))


def _items_with(
    old: BundleCatalogue, keys: Int[np.ndarray, " key"]
) -> Mapping[int, Int[np.ndarray, " item"]]:
    """Returns the items that have each of some terms, by the keys of these, which rise."""
    if not len(keys):
        return {}
    starts, values = old.digests.terms
    rows, found = [], []
    for start in range(0, len(old), SCANNED_ROWS):
        edges = starts[start : start + SCANNED_ROWS + 1]
        terms = values[edges[0] : edges[-1]]
        number = np.minimum(np.searchsorted(keys, terms), len(keys) - 1)
        (place,) = np.nonzero(keys[number] == terms)
        rows.append(start + np.searchsorted(edges - edges[0], place, side="right") - 1)
        found.append(number[place])
    item, number = np.concatenate(rows), np.concatenate(found)
    order = np.argsort(number, kind="stable")
    cuts = np.searchsorted(number[order], np.arange(1, len(keys)))
    return dict(zip(keys.tolist(), np.split(item[order], cuts), strict=True))
