"""The catalogue of a bundle: items and queries, and all that is derived of them.

| file | contents |
| --- | --- |
| `ids.mdb` | number of each item by its id |
| `items.mdb` | what is known of each item, by number, see `item_to_json` |
| `vectors.npy` | float32 `[item, dim]` |
| `sids.npy` | uint16 or int32 `[item, level]` |
| `numbers.npy` | float64 `[item, column]`, the user's own, NaN where not known |
| `log_shares.npy` | float32 `[item, level]`, see `prefix_match.log_prefix_shares` |
| `categories.npy` | int32 `[item]`, number of the category path, −1 where not known |
| `digests/` | texts of items as features read them, see `digested` |
| `trie.safetensors` | the SIDs that exist |
| `postings.safetensors` | the items of every SID |
| `statistics.safetensors` | what features know of the whole catalogue |
| `voters.safetensors` | vectors of the training queries, and what was judged for them |
| `near_items.safetensors` | lists by which the nearest items are found, where there are many |
| `near_voters.safetensors` | likewise of the training queries |
| `queries.mdb` | cached queries by identity: a record of `cached.record_type`, then the text |
| `record.npy` | the type of these records |

`.mdb` files are LMDB's. Arrays are mapped, so that a catalogue of any size opens at once.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer

from dsirm_jax.data.identity import PLAIN, QueryIdentity
from dsirm_jax.io import arrays, disk
from dsirm_jax.io.errors import InputError, naming
from dsirm_jax.io.records import from_json
from dsirm_jax.relevance.digests import CatalogueStatistics, ItemDigests
from dsirm_jax.relevance.nearest import search
from dsirm_jax.relevance.nearest.lists import search_in
from dsirm_jax.relevance.neighbours import Judged
from dsirm_jax.relevance.pieces import PieceStatistics
from dsirm_jax.relevance.terms import Names
from dsirm_jax.serving.bundle import digested, store
from dsirm_jax.serving.bundle.cached import Cached, packed, unpacked
from dsirm_jax.serving.bundle.item_parts import ItemParts
from dsirm_jax.serving.bundle.stored_items import UNKNOWN, StoredItem, item_from_json
from dsirm_jax.sids import prefix_match
from dsirm_jax.sids import trie as tries
from dsirm_jax.sids.trie import Postings, Trie

IDS, ITEMS, QUERIES = "ids.mdb", "items.mdb", "queries.mdb"
VECTORS, SIDS, NUMBERS, RECORD = "vectors.npy", "sids.npy", "numbers.npy", "record.npy"
LOG_SHARES, CATEGORIES, DIGESTS = "log_shares.npy", "categories.npy", "digests"
TRIE, POSTINGS = "trie.safetensors", "postings.safetensors"
STATISTICS, VOTERS = "statistics.safetensors", "voters.safetensors"
OTHERWISE = "not a whole file of a bundle; copy the bundle again, or export it anew"
ROWS_PER_BLOCK = 4096


class Voters(NamedTuple):
    """The training queries, whose judgements a query's neighbours among them vote with.

    Attributes:
      vectors: of length 1, float32 `[voter, dim]`; a row of zeros where there is none.
      judged: what was judged for each.
    """

    vectors: Float[np.ndarray, "voter dim"]
    judged: Judged


@dataclasses.dataclass(frozen=True, kw_only=True)
class BundleCatalogue:
    """An open catalogue; what it holds is mapped into memory and shared by all processes.

    Attributes:
      folder: whose files it is.
      ids: numbers by id.
      stored: items by number.
      identity: of queries; None in a bundle of version 0.2, where `queries` is by text.
      queries: records of the cached queries, and their texts, by identity.
      record: type of these records.
      vectors: dense vectors of the items.
      sids: their SIDs.
      numbers: the user's own of each item.
      log_shares: log share of the items that have the first codes of each.
      categories: number of each item's category path, `UNKNOWN` where it has none.
      digests: texts of the items as features read them.
      trie: the SIDs that exist.
      postings: the items of each SID, by number.
      statistics: what features know of the whole catalogue.
      voters: see `Voters`.
      item_search: finds the nearest items.
      voter_search: finds the nearest training queries.
    """

    folder: Path
    ids: store.KeyValues
    stored: store.KeyValues
    identity: QueryIdentity | None
    queries: store.KeyValues
    record: np.dtype
    vectors: Float[np.ndarray, "item dim"]
    sids: Integer[np.ndarray, "item level"]
    numbers: Float[np.ndarray, "item column"]
    log_shares: Float[np.ndarray, "item level"]
    categories: Int[np.ndarray, " item"]
    digests: ItemDigests
    trie: Trie
    postings: Postings
    statistics: CatalogueStatistics
    voters: Voters
    item_search: search.Search
    voter_search: search.Search

    @classmethod
    def open(cls, folder: Path, *, identity: QueryIdentity | None = None) -> BundleCatalogue:
        """Opens a catalogue.

        Args:
          folder: whose files it is.
          identity: as in `manifest.BundleSettings`.

        Raises:
          InputError: a file is missing or cannot be read.
        """
        postings, _ = _load(folder / POSTINGS)
        with naming(folder / POSTINGS, otherwise=OTHERWISE):
            of_sids = Postings(**postings)
        with naming(folder / VOTERS, otherwise=OTHERWISE):
            named, _ = _load(folder / VOTERS)
            voters = Voters(named["vectors"], Judged(named["items"], named["verdicts"]))
        vectors = _array(folder / VECTORS)
        for path, rows in ((folder / VECTORS, vectors), (folder / VOTERS, voters.vectors)):
            if rows.dtype != np.float32 or rows.ndim != 2:  # what searches them relies on it
                raise InputError(f"{path}: {OTHERWISE}")
        return cls(
            folder=folder,
            ids=store.open_store(folder / IDS),
            stored=store.open_store(folder / ITEMS),
            identity=identity,
            queries=store.open_store(folder / QUERIES),
            record=_array(folder / RECORD).dtype,
            vectors=vectors,
            sids=_array(folder / SIDS),
            numbers=_array(folder / NUMBERS),
            log_shares=_array(folder / LOG_SHARES),
            categories=_array(folder / CATEGORIES),
            digests=digested.read_digests(folder / DIGESTS),
            trie=tries.load(folder / TRIE),
            postings=of_sids,
            statistics=_read_statistics(folder / STATISTICS),
            voters=voters,
            item_search=search_in(folder, search.ITEMS, vectors, otherwise=OTHERWISE),
            voter_search=search_in(folder, search.VOTERS, voters.vectors, otherwise=OTHERWISE),
        )

    def __len__(self) -> int:
        return len(self.sids)

    def numbers_of(self, item_ids: Iterable[str]) -> Int[np.ndarray, " item"]:
        """Returns the number of each item, int64, `UNKNOWN` where there is none."""
        values = self.ids.get(map(store.key, item_ids))
        numbers = [UNKNOWN if value is None else int.from_bytes(value, "big") for value in values]
        if max(numbers, default=UNKNOWN) >= len(self):
            raise InputError(f"{self.folder / IDS}: an item has no row; {OTHERWISE}")
        return np.array(numbers, np.int64)

    def items(self, numbers: Collection[int]) -> list[StoredItem]:
        """Returns items by their numbers, which have to exist."""
        values = self.stored.existing(store.keys_of_numbers(numbers))
        with naming(self.folder / ITEMS, otherwise=OTHERWISE):
            return [item_from_json(int(n), value) for n, value in zip(numbers, values, strict=True)]

    def items_below(self, prefix: Sequence[int]) -> Integer[np.ndarray, " item"]:
        """Returns the numbers of the items whose SID starts with some codes."""
        return tries.items_below(self.trie, self.postings, prefix)

    def spelling(self, query: str) -> str | None:
        """Returns the spelling under which a query, which has been cleaned, is cached, if it is."""
        found = self._row(query)
        return None if found is None else found[0]

    def cached_queries(self) -> Iterator[tuple[str, bytes]]:
        """Yields the text and the record of every cached query, in the order of their keys."""
        for key, value in self.queries:
            yield self._parts(key, value)

    def _row(self, query: str) -> tuple[str, bytes] | None:
        """Returns the text and the record of a query by any of its spellings."""
        key = store.key((self.identity or PLAIN).of(query))
        (value,) = self.queries.get([key])
        if value is None and self.identity is None:
            key = self._keys_by_identity.get(key, b"")
            (value,) = self.queries.get([key])
        return None if value is None else self._parts(key, value)

    @functools.cached_property
    def _keys_by_identity(self) -> Mapping[bytes, bytes]:
        """The keys of a bundle of version 0.2, which are texts as they were spelt."""
        return {store.key(PLAIN.of(key.decode())): key for key, _ in self.queries}

    def _parts(self, key: bytes, value: bytes) -> tuple[str, bytes]:
        with naming(self.folder / QUERIES, otherwise=OTHERWISE):
            end = self.record.itemsize
            return (value[end:] or key).decode(), value[:end]

    def cached(self, query: str) -> Cached | None:
        """Returns what is known of a query, which has been cleaned; None where it is not cached.

        All spellings of a query are known as one of them, see `spelling`.
        """
        row = self._row(query)
        if row is None:
            return None
        _, record = row
        with naming(self.folder / QUERIES, otherwise=OTHERWISE):
            cached = unpacked(np.frombuffer(record, self.record))
            if len(cached.vectors) != 1 or not self.has_all_of(cached):
                raise ValueError("a query refers to what is not there")
            return cached

    def has_all_of(self, cached: Cached) -> bool:
        """Returns whether the items, training queries and SIDs that a record names exist."""
        beams, sizes = cached.beams, np.array(self.trie.sizes)
        sids, rows, voters = beams.sids[beams.valid], cached.items.row, cached.queries.row
        return bool(
            ((sids >= 0) & (sids < sizes)).all()
            and ((rows >= 0) & (rows < len(self))).all()
            and ((voters >= 0) & (voters < len(self.voters.vectors))).all()
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Described:
    """What the header of `STATISTICS` says."""

    documents: int
    mean_length: float
    brands: tuple[str, ...]
    colours: tuple[str, ...]


def write_catalogue(
    folder: Path,
    *,
    items: ItemParts,
    vectors: Iterable[Float[np.ndarray, "row dim"]],
    sids: Int[np.ndarray, "item level"],
    trie: Trie,
    voters: Voters,
    queries: Iterable[tuple[Sequence[str], Cached]],
    identity: QueryIdentity = PLAIN,
) -> None:
    """Writes a catalogue. Memory holds its SIDs, and some rows of all else.

    Args:
      folder: where to; it must not exist.
      items: what is kept of the items.
      vectors: of the items, some at a time.
      sids: of the items.
      trie: of these SIDs.
      voters: see `Voters`.
      queries: those to be cached, see `write_queries`. Asked for last, when all else is there.
      identity: of queries.
    """
    folder.mkdir(parents=True)
    _write_statistics(folder / STATISTICS, items.statistics)
    with ThreadPoolExecutor(1) as beside:
        stores = beside.submit(write_stores, folder, items)
        _write_array(folder / NUMBERS, items.numbers, rows=len(sids), type_=np.float64)
        _write_array(folder / VECTORS, vectors, rows=len(sids), type_=np.float32)
        sizes = trie.sizes
        np.save(folder / SIDS, sids.astype(np.uint16 if max(sizes) <= 1 << 16 else np.int32))
        digested.write_digests(folder / DIGESTS, items.digests)
        postings = tries.postings(sids, sizes=sizes)
        _save(folder / POSTINGS, dataclasses.asdict(postings))
        shares = prefix_match.log_prefix_shares(sids, sizes=sizes, order=postings.rows)
        np.save(folder / LOG_SHARES, shares)
        np.save(folder / CATEGORIES, items.categories)
        tries.save(folder / TRIE, trie)
        _save(folder / VOTERS, {"vectors": voters.vectors, **voters.judged._asdict()})
        stores.result()
    write_queries(folder, queries, identity=identity)


def write_stores(folder: Path, items: ItemParts) -> None:
    """Writes the ids of all items of a catalogue, and what is stored of them."""
    for name, rows in ((IDS, items.ids), (ITEMS, items.stored)):
        store.write_store(folder / name, rows, beside=items.beside and items.beside / name)


def copy_items(old: Path, folder: Path) -> None:
    """Copies all of a catalogue but its cached queries, which `write_queries` adds.

    Args:
      old: folder of the catalogue.
      folder: where to; it must not exist.
    """
    for file in old.rglob("*"):
        if file.is_file() and file.name not in (QUERIES, RECORD):
            copied = folder / file.relative_to(old)
            with disk.writing(copied):
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copied)


def write_queries(
    folder: Path, queries: Iterable[tuple[Sequence[str], Cached]], *, identity: QueryIdentity
) -> None:
    """Writes the cached queries of a catalogue that has none.

    Args:
      folder: of the catalogue.
      queries: some at a time: their texts, cleaned, and what is known of them. Of several spellings
        of one query the first is kept.
      identity: of queries.
    """
    records = _query_records(queries, type_to=folder / RECORD, identity=identity)
    store.write_store(folder / QUERIES, records)


def item_vectors(folder: Path) -> Float[np.ndarray, "item dim"]:
    """Maps the vectors of a catalogue into memory, which may not have its queries yet."""
    return _array(folder / VECTORS)


def row_blocks(
    array: Float[np.ndarray, "row dim"], *, rows: int = ROWS_PER_BLOCK
) -> Iterator[Float[np.ndarray, "row dim"]]:
    """Yields an array some rows at a time."""
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def _query_records(
    queries: Iterable[tuple[Sequence[str], Cached]], *, type_to: Path, identity: QueryIdentity
) -> Iterator[tuple[bytes, bytes]]:
    """Yields records, with their texts, by identity, and writes the type of the records."""
    for texts, cached in queries:
        records = packed(cached)
        if not type_to.exists():
            np.save(type_to, records[:0])
        for text, record in zip(texts, records, strict=True):
            yield store.key(identity.of(text)), record.tobytes() + text.encode()


def _write_array(
    path: Path, blocks: Iterable[np.ndarray], *, rows: int, type_: type[np.floating]
) -> None:
    """Writes blocks of rows as one array; not into a mapped one, which ends with a full disk."""
    row = 0
    with disk.writing(path), path.open("wb") as file:
        for block in blocks:
            if not file.tell():
                header = np.lib.format.header_data_from_array_1_0(np.empty(0, type_))
                shape = (rows, block.shape[1])
                np.lib.format.write_array_header_1_0(file, header | {"shape": shape})
            file.write(np.ascontiguousarray(block, type_).data)
            row += len(block)
    if not path.stat().st_size or row != rows:
        raise ValueError(f"{path}: {row} rows instead of {rows}")


def _array(path: Path) -> np.ndarray:
    """Maps an array into memory; a plain one, which is faster than `np.memmap`."""
    with naming(path, otherwise=OTHERWISE):
        return np.asarray(np.lib.format.open_memmap(path, mode="r"))


def _write_statistics(path: Path, statistics: CatalogueStatistics) -> None:
    pieces, names = statistics
    description = {
        "documents": pieces.documents,
        "mean_length": float(pieces.mean_length),
        **{kind: sorted(words) for kind, words in names._asdict().items()},
    }
    _save(path, {"with_piece": pieces.with_piece}, description)


def _read_statistics(path: Path) -> CatalogueStatistics:
    named, description = _load(path)
    with naming(path, otherwise=OTHERWISE):
        known = from_json(_Described, description, name="the description")
        pieces = PieceStatistics(known.documents, named["with_piece"], known.mean_length)
        names = Names(*(frozenset(getattr(known, kind)) for kind in Names._fields))
        return CatalogueStatistics(pieces, names)


def _save(path: Path, named: Mapping[str, np.ndarray], description: Any = None) -> None:
    arrays.save(path, named, kind=path.stem, description=description)


def _load(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    return arrays.load(path, kind=path.stem, otherwise=OTHERWISE, mapped=True)
