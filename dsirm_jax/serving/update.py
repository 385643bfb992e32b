"""Further items and queries for a bundle that is being read.

A new catalogue is written beside the old one, and the manifest is replaced last: until then the
bundle is the old one, and who has that open keeps it. Nothing is trained and no program exported:
items get vectors and SIDs from the bundle's own encoder and quantizer.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from dsirm_jax.data import vectors
from dsirm_jax.data.identity import PLAIN
from dsirm_jax.data.schema import RAW_ITEMS
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.categories import paths_of
from dsirm_jax.ingestion.columns.mapping import item_mapping, split_categories
from dsirm_jax.ingestion.query_files import FLAG, check_given, read_query_file
from dsirm_jax.ingestion.validation.validate import checked_items
from dsirm_jax.io import lock
from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer import fitted as quantizers
from dsirm_jax.quantizer.assign import assign_vectors
from dsirm_jax.quantizer.codebooks import category_codes
from dsirm_jax.quantizer.fitted import FittedQuantizer
from dsirm_jax.relevance.nearest.build import QUERIES, told, updated
from dsirm_jax.relevance.nearest.lengths import unit
from dsirm_jax.relevance.nearest.lists import Listed, lists_file, save
from dsirm_jax.relevance.nearest.search import ITEMS, VOTERS
from dsirm_jax.relevance.neighbours import NEAR_ITEMS
from dsirm_jax.serving import caching
from dsirm_jax.serving.bundle import catalogue as catalogues
from dsirm_jax.serving.bundle import contents as bundles
from dsirm_jax.serving.bundle import models
from dsirm_jax.serving.bundle.cached import NO_KEY, Cached, unpacked
from dsirm_jax.serving.bundle.catalogue import BundleCatalogue
from dsirm_jax.serving.bundle.contents import Bundle
from dsirm_jax.serving.bundle.known import QuerySidPairs, of_beams, of_near
from dsirm_jax.serving.bundle.manifest import Manifest, package_versions
from dsirm_jax.serving.bundle.stored_items import item_from_json
from dsirm_jax.serving.caching import NewItems
from dsirm_jax.serving.formats import saved_model
from dsirm_jax.sids import codes
from dsirm_jax.sids import trie as tries

log = logging.getLogger(__name__)
_Key = TypeVar("_Key", str, bytes)
ITEM_COLUMNS = pa.schema(
    [
        *((name, pa.string()) for name in ("item_id", "title", "text", "brand", "colour")),
        ("category", pa.list_(pa.string())),
    ]
)
LOCK = "update.lock"
"""File of a bundle, none of those that are sealed, that says who updates it or did last."""


def update(
    path: Path,
    *,
    items: str | None,
    queries: str | None,
    columns: Mapping[str, str] = MappingProxyType({}),
    category_separator: str | None = None,
    category_list_separator: str | None = None,
) -> None:
    """Adds items and cached queries to a bundle.

    Items and queries that are there already stay as they are, but that the SIDs and neighbours of
    queries are those that they have with the new items. Of new rows that share an id the last one
    counts, as in `prepare`.

    Args:
      path: of the bundle.
      items: a table of items, Parquet, CSV, TSV or JSON lines, under the names of
        `schema.RAW_ITEMS` and of the run's own columns; where the bundle has no encoder Parquet
        with a column `vector`.
      queries: a table with a column `query`, and `vector` likewise.
      columns: our column name to that of the files, where they differ.
      category_separator: between the levels of a category path, see `categories.paths_of`.
      category_list_separator: between several paths of one item, likewise.

    Raises:
      InputError: a file of the bundle is not what was written; a file cannot be read or has rows
        that are no items or queries; or another update of the bundle is under way.
    """
    if not (items or queries):
        raise InputError("nothing to add: give --items=FILE, --queries=FILE or both")
    check_given(columns, wanted=("query", *RAW_ITEMS.names))
    if not (path / bundles.MANIFEST).is_file():  # where there is no bundle nothing is written
        raise InputError(f"{path / bundles.MANIFEST}: no such file; name the folder of a bundle")
    with lock.held(path / LOCK, what=f"bundle {path}"):
        # What is read or taken over is what was written, for it gets new checksums.
        bundle = bundles.open_bundle(path)
        _remove_leftovers(path, bundle.manifest)
        of_items = {ours: users for ours, users in columns.items() if ours != "query"}
        separators = {"separator": category_separator, "several": category_list_separator}
        new = _read_items(bundle, items, columns=of_items, separators=separators)
        texts, query_vectors = _read_new_queries(bundle, queries, column=columns.get("query"))
        number = bundle.manifest.catalogue + 1
        manifest = dataclasses.replace(
            bundle.manifest,
            catalogue=number,
            items=bundle.manifest.items + len(new.sids),
            settings=dataclasses.replace(
                bundle.manifest.settings,
                identity=bundle.manifest.settings.identity or PLAIN,
            ),
            packages=package_versions(),
        )
        manifest = dataclasses.replace(
            manifest,
            queries=_write_catalogue(
                bundle, manifest, new=new, texts=texts, query_vectors=query_vectors
            ),
        )
        changed = Bundle(path=path, manifest=manifest)
        # TF Serving takes what has a number for a name as soon as it is there.
        partial = path / "saved_model" / f"partial-{number}"
        saved_model.with_catalogue(
            path / bundle.manifest.saved_model_folder, changed.catalogue, into=partial
        )
        partial.rename(path / manifest.saved_model_folder)
        bundles.seal_bundle(path, manifest)
        log.info(
            "%s: %s items (%s new), %s cached queries",
            *(path, manifest.items, len(new.sids), manifest.queries),
        )
        _remove_leftovers(path, manifest)


def _remove_leftovers(path: Path, manifest: Manifest) -> None:
    """Removes what an update that was killed left, and catalogues before the previous one."""
    previous = dataclasses.replace(manifest, catalogue=max(manifest.catalogue - 1, 1))
    folders = [(m.catalogue_folder, m.saved_model_folder) for m in (manifest, previous)]
    names = set(itertools.chain.from_iterable(folders))
    for folder in (*path.glob("catalogue-*"), *path.glob("saved_model/*")):
        if folder.relative_to(path).as_posix() not in names:
            shutil.rmtree(folder)
    for partial in path.glob(f"{bundles.MANIFEST}.partial-*"):
        partial.unlink()


def _read_items(
    bundle: Bundle,
    file: str | None,
    *,
    columns: Mapping[str, str],
    separators: Mapping[str, str | None],
) -> NewItems:
    """Reads the items that the catalogue lacks, and gives them vectors and SIDs."""
    settings, catalogue = bundle.manifest.settings, bundle.catalogue
    extras = pa.schema(
        [(name, pa.type_for_alias(alias)) for name, alias in settings.extras.items()]
    )
    schema = pa.schema([*ITEM_COLUMNS, *extras])
    none = schema.empty_table()
    nothing = caching.no_items(bundle)._replace(table=none)
    if not file:
        return nothing
    mapping = dataclasses.replace(
        item_mapping(columns, extras.names, binding=FLAG),
        table=None,
        remedy=f"name yours: {FLAG}=item_id=sku,title=name",
    )
    parts = formats.told_parts(file, mapping=mapping)
    paths, findings = paths_of(parts, **separators, binding="--")
    for finding in findings:
        log.log(finding.level, "%s: %s", file, finding.text)
    parts = split_categories(parts, separator=paths.separator, several=paths.several)
    read = functools.partial(checked_items, extras=extras, item_text=settings.item_text)
    chunks = [read(chunk) for part in parts for chunk in part()]
    for _, rejected in chunks:
        for row in rejected.slice(0, 1).to_pylist():
            raise InputError(
                f"{file} row {row['row']}: column {row['column']} = {row['value']!r} "
                f"({row['reason']}); correct the row or leave it out"
            )
    accepted = [rows.select(schema.names).cast(schema) for rows, _ in chunks]
    table = pa.concat_tables([none, *accepted])
    ids = table["item_id"].to_pylist()
    known = catalogue.numbers_of(ids) != catalogues.UNKNOWN
    last = {name: row for row, name in enumerate(ids)}
    rows = sorted(row for row in last.values() if not known[row])
    if known.any():
        log.info("%s: %s of its %s rows are there already", file, known.sum(), len(ids))
    if copies := len(ids) - known.sum() - len(rows):
        log.info(
            "%s: %s rows share their item_id with a later one, which is the item", file, copies
        )
    table = table.take(pa.array(rows, pa.int64()))
    if not len(table):
        return nothing
    encoder = bundle.models.encoder
    if encoder is None:
        item_vectors = vectors.read_vectors(
            file, ids=table["item_id"], id_column=mapping.columns["item_id"]
        )
        caching.check_width(file, item_vectors, dim=settings.encoder.dim)
    else:
        item_vectors = encoder.embed(table["text"].to_pylist(), of_items=True)
    quantizer = quantizers.load(bundle.model / models.QUANTIZER)
    pinned = _pinned(table, quantizer, from_titles=settings.types_from_titles)
    assigned = assign_vectors(fitted=quantizer, vectors=item_vectors, pinned=pinned)
    return NewItems(table, unit(item_vectors), assigned.codes)


def _pinned(
    table: pa.Table, quantizer: FittedQuantizer, *, from_titles: bool
) -> Int[np.ndarray, " item"] | None:
    """Returns the first codes that the items' categories pin."""
    if not quantizer.names:
        return None
    if from_titles or not quantizer.config.pin_depth:
        types = [quantizer.title_types.of(title) for title in table["title"].to_pylist()]
        categories = pa.chunked_array([pa.array(types, pa.string())])
    else:
        paths = pc.list_slice(table["category"], 0, quantizer.config.pin_depth)
        categories = pc.binary_join(paths, " > ")
    codes, _ = category_codes(categories, most=len(quantizer.names), known=quantizer.names)
    return codes


def _read_new_queries(
    bundle: Bundle, file: str | None, *, column: str | None
) -> tuple[list[str], Float[np.ndarray, "query dim"]]:
    """Returns texts and vectors of the queries that are not cached."""
    nothing = np.empty((0, bundle.manifest.settings.encoder.dim), np.float32)
    if not file:
        return [], nothing
    columns = {"query": column} if column else {}
    rows = itertools.chain.from_iterable(read_query_file(file, columns=columns))
    texts = caching.not_cached(bundle, rows)
    if not texts:
        return [], nothing
    return texts, caching.vectors_of(bundle, texts, file=file, column=column or "query")


def _write_catalogue(
    bundle: Bundle,
    manifest: Manifest,
    *,
    new: NewItems,
    texts: Sequence[str],
    query_vectors: Float[np.ndarray, "query dim"],
) -> int:
    """Writes the catalogue of a bundle's items and queries and of new ones.

    Returns:
      The number of cached queries.
    """
    old, folder = bundle.catalogue, bundle.path / manifest.catalogue_folder
    sids = np.concatenate([np.asarray(old.sids, np.int32), new.sids])
    trie = tries.build(sids, sizes=manifest.sizes, kind=manifest.settings.trie)

    def rows() -> Iterator[pa.Table]:
        yield from _stored(old, schema=new.table.schema)
        if len(new.table):
            yield new.table

    catalogues.write_catalogue(
        folder,
        rows=rows,
        vectors=itertools.chain(catalogues.row_blocks(old.vectors), [new.vectors]),
        sids=sids,
        trie=trie,
        numbers=manifest.settings.numbers,
        voters=old.voters,
        queries=itertools.chain(
            _known(bundle, new=new, sids=sids, trie=trie),
            caching.fresh(bundle, texts, query_vectors, new=new, sids=sids, trie=trie),
        ),
        processor=bundle.models.vocabulary,
        language=manifest.settings.language,
        identity=manifest.settings.identity or PLAIN,
    )
    written = BundleCatalogue.open(folder)
    _write_lists(old, written)
    return len(written.queries)


def _write_lists(old: BundleCatalogue, new: BundleCatalogue) -> None:
    """Writes the lists of a catalogue, with the new items in them, where the old one has some."""
    of_items, of_voters = old.item_search, old.voter_search
    if isinstance(of_voters, Listed):
        save(lists_file(new.folder, VOTERS), of_voters.lists)
    if isinstance(of_items, Listed):
        step = max(len(new.queries) // QUERIES, 1)
        records = (record for _, record in itertools.islice(new.cached_queries(), 0, None, step))
        queries = unpacked(np.frombuffer(b"".join(records), new.record)).vectors
        lists = updated(of_items.lists, new.vectors, queries=queries)
        save(lists_file(new.folder, ITEMS), lists)
        told(ITEMS, lists)


def _stored(old: BundleCatalogue, *, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yields the items of a catalogue as the table that they came from."""
    for block in _in_blocks(old.stored, rows=catalogues.ROWS_PER_BLOCK):
        items = [item_from_json(0, value) for _, value in block]
        yield pa.Table.from_pylist([vars(item) | dict(item.attributes) for item in items], schema)


def _known(
    bundle: Bundle, *, new: NewItems, sids: Int[np.ndarray, "item level"], trie: tries.Trie
) -> Iterator[tuple[list[str], Cached]]:
    """Yields the cached queries, with what they have with the new items."""
    old = bundle.catalogue
    grew = not tries.contains(old.trie, new.sids).all()
    for block in _in_blocks(old.cached_queries(), rows=caching.QUERIES_PER_BLOCK):
        texts = [text for text, _ in block]
        cached = unpacked(np.frombuffer(b"".join(record for _, record in block), old.record))
        beams = caching.searched(bundle, texts, trie) if grew else cached.beams
        near = caching.nearest(
            cached.vectors, cached.items, new, numbered_from=len(old), most=NEAR_ITEMS
        )
        known = cached.known
        if len(new.sids):
            query, place = np.nonzero(known.keys != NO_KEY)
            before = codes.unpack(known.keys[query, place], sizes=trie.sizes)
            # What is new comes first, for of what was known there may be as much as has room.
            pairs = [of_beams(beams), of_near(near, sids), QuerySidPairs(query, before)]
            known = caching.known_of(bundle, texts, pairs)
        yield texts, cached._replace(beams=beams, items=near, known=known)


def _in_blocks(
    rows_of: Iterable[tuple[_Key, bytes]], *, rows: int
) -> Iterator[list[tuple[_Key, bytes]]]:
    left = iter(rows_of)
    while block := list(itertools.islice(left, rows)):
        yield block
