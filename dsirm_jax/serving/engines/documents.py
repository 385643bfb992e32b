"""Writes a run's items and queries for a search engine, some files at a time, flat in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing, write_text
from dsirm_jax.run.layout import Layout
from dsirm_jax.serving.engines.engine import (
    FIELDS,
    Document,
    Engine,
    Index,
    Terms,
    prefixes_of,
    terms_of,
)
from dsirm_jax.sids.codes import check_same_version
from dsirm_jax.training.progress import progress

DOCUMENTS_A_FILE = 10_000
"""A file of them is some megabytes, what one request of an engine may hold."""


def write_documents(
    layout: Layout,
    folder: Path,
    *,
    engine: Engine,
    name: str,
    vectors: Float[np.ndarray, "item dim"] | None = None,
    documents_a_file: int = DOCUMENTS_A_FILE,
) -> None:
    """Writes what makes the index, the documents of all items, and the queries known beforehand.

    A file that is there is whole, from a call that was interrupted, and stays.

    Args:
      layout: of a run with SIDs of items and queries.
      folder: where to; made when missing.
      engine: whose files.
      name: of the index.
      vectors: of all items, of length 1; None: documents have none.
      documents_a_file: documents, or queries, of a file.

    Raises:
      InputError: the SIDs are not those of the items, or of another version than the queries'.
    """
    version = check_same_version(layout.sids, layout.query_sids)
    dim = None if vectors is None else vectors.shape[1]
    index = Index(name=name, sid_version=version, dim=dim)
    for file, text in engine.index_files(index).items():
        write_text(folder / file, text)
    rows = pq.read_metadata(layout.items).num_rows
    documents = (
        (engine.document(document, index=index) for document in block)
        for block in _documents(layout, vectors=vectors, at_once=documents_a_file)
    )
    queries = (
        (engine.query(text, terms, index=index) for text, terms in block)
        for block in _queries(layout.query_sids, at_once=documents_a_file)
    )
    _write(documents, folder / f"documents.{engine.suffix}", files=-(-rows // documents_a_file))
    rows = pq.read_metadata(layout.query_sids).num_rows
    _write(queries, folder / f"queries.{engine.suffix}", files=-(-rows // documents_a_file))


def _documents(
    layout: Layout, *, vectors: Float[np.ndarray, "item dim"] | None, at_once: int
) -> Iterator[Iterable[Document]]:
    """Yields the items, some at a time.

    Raises:
      InputError: the table of SIDs is of other items, or in another order.
    """
    items, sids = (
        pq.ParquetFile(path).iter_batches(at_once, columns=columns)
        for path, columns in (
            (layout.items, ["item_id", *FIELDS]),
            (layout.sids, ["item_id", "sid"]),
        )
    )
    first = 0
    for of_items, of_sids in zip(items, sids, strict=True):
        if not of_items["item_id"].equals(of_sids["item_id"]):
            raise InputError(
                f"{layout.sids}: rows {first + 1} to {first + len(of_sids)} are not the items of "
                f"{layout.items}; run `dsirm quantize` again"
            )
        block = None if vectors is None else vectors[first : first + len(of_items)]
        yield _documents_in(of_items, of_sids["sid"].to_pylist(), vectors=block)
        first += len(of_items)


def _documents_in(
    items: pa.RecordBatch,
    sids: list[list[int]],
    *,
    vectors: Float[np.ndarray, "item dim"] | None,
) -> Iterator[Document]:
    for row, (item, sid) in enumerate(zip(items.to_pylist(), sids, strict=True)):
        item["category"] = " > ".join(item["category"] or ())
        yield Document(
            item_id=item.pop("item_id"),
            prefixes=prefixes_of(sid),
            fields={name: value for name, value in item.items() if value},
            vector=None if vectors is None else vectors[row],
        )


def _queries(query_sids: Path, *, at_once: int) -> Iterator[Iterable[tuple[str, Terms]]]:
    """Yields the queries that have SIDs, with the weights of their prefixes, some at a time."""
    for batch in pq.ParquetFile(query_sids).iter_batches(at_once):
        asked = (
            (row["query"], terms_of(row["sids"], np.exp(row["log_probs"])))
            for row in batch.to_pylist()
        )
        yield ((text, terms) for text, terms in asked if terms)


def _write(blocks: Iterable[Iterable[str]], path: Path, *, files: int) -> None:
    """Writes a file a block, numbered as `documents-00000-of-00010.ndjson`."""
    for number, lines in enumerate(progress(blocks, total=files, name=path.stem, unit="file")):
        part = path.with_stem(f"{path.stem}-{number:05}-of-{files:05}")
        if not part.exists():
            with replacing(part) as partial, partial.open("w", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
