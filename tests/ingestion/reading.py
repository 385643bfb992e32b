"""Writes small tables, and reads a source through the row checks as `prepare` does."""

from __future__ import annotations

import gzip
import json
import pickle

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from dsirm_jax.ingestion.grading.labels import LabelTable
from dsirm_jax.ingestion.validation.validate import checked_items, checked_judgements


def write(rows, path):
    """Writes rows in the format that the suffix names, with other means than the reader's."""
    table = pa.Table.from_pylist(rows)
    plain = path.with_name(path.name.removesuffix(".gz"))
    if plain.suffix == ".parquet":
        pq.write_table(table, plain)
    elif plain.suffix == ".jsonl":
        plain.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        delimiter = "\t" if plain.suffix == ".tsv" else ","
        options = pa.csv.WriteOptions(delimiter=delimiter)
        pa.csv.write_csv(table, plain, options)
    if path != plain:
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return str(path)


def chunks(parts):
    """Yields the chunks of some parts, each of which went to another process and back."""
    for part in parts:
        yield from pickle.loads(pickle.dumps(part))()


def items_of(source):
    """Returns the kept and the rejected items as rows."""
    return _rows(checked_items(chunk, extras=source.extras) for chunk in chunks(source.items))


def judgements_of(source, labels):
    """Returns the kept and the rejected judgements as rows."""
    known = LabelTable(gains=dict.fromkeys([*labels, "worse", "better"], 0), relevant=("better",))
    return _rows(
        checked_judgements(chunk, labels=known, seed=0) for chunk in chunks(source.judgements)
    )


def _rows(checked):
    pairs = list(checked)
    return tuple([row for pair in pairs for row in pair[place].to_pylist()] for place in (0, 1))


def raw_rows(parts):
    """Returns the rows of raw parts as they are, and number, contents and reason of the others."""
    rows, unreadable = [], []
    for chunk in chunks(parts):
        for position, row in enumerate(chunk.table.to_pylist()):
            number = chunk.row_numbers()[position]
            if position in chunk.unreadable:
                unreadable.append((number, *chunk.unreadable[position]))
            else:
                rows.append({"row": number} | {k: _decoded(v) for k, v in row.items()})
    return rows, unreadable


def values(rows, *names):
    """Returns the values of some columns of rows."""
    return [tuple(row.get(name) for name in names) for row in rows]


def _decoded(value):
    if isinstance(value, list):
        return [_decoded(part) for part in value]
    return value.decode() if isinstance(value, bytes) else value
