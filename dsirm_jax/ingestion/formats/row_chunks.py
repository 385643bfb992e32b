"""Single rows of a file that is no table, gathered to chunks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import pyarrow as pa

from dsirm_jax.data.schema import Chunk
from dsirm_jax.ingestion.formats.file_starts import as_bytes

_ROWS = 16_384
_COUNTS = ("impressions", "clicks", "purchases", "position")


class Row(NamedTuple):
    """One row.

    Attributes:
      number: of the row in its file, from 1.
      values: by our name of the column; counts and positions are whole numbers.
      fault: what stood there and why it cannot be read, where it cannot.
    """

    number: int
    values: Mapping[str, object]
    fault: tuple[str, str] | None = None


def faulty(number: int, contents: str, reason: str) -> Row:
    """Returns a row that cannot be read."""
    return Row(number, {}, (as_bytes(contents.strip()).decode("utf-8", "backslashreplace"), reason))


def chunks(rows: Iterable[Row], *, file: str, columns: Mapping[str, str]) -> Iterator[Chunk]:
    """Yields some rows at a time.

    Args:
      rows: of one file, in order.
      file: as messages name it.
      columns: our name to the file's of all columns that rows may have.
    """
    rows = iter(rows)
    while block := list(itertools.islice(rows, _ROWS)):
        yield Chunk(
            table=pa.table(
                {name: _column(name, [row.values.get(name) for row in block]) for name in columns}
            ),
            file=file,
            columns=columns,
            rows=[row.number for row in block],
            unreadable={
                position: row.fault for position, row in enumerate(block) if row.fault is not None
            },
        )


def _column(name: str, values: list[object]) -> pa.Array:
    if not any(value is not None for value in values):
        return pa.nulls(len(values))
    if name in _COUNTS:
        return pa.array(values, pa.int64())
    return pa.array(map(text_of, values), pa.binary())


def text_of(value: object) -> bytes | None:
    """Returns a value of JSON as text, whatever its type; an empty text, or NaN, is null.

    Example:
      >>> text_of(17.0), text_of(" 17"), text_of(float("nan")), text_of(True)
      (b'17', b'17', None, b'true')
    """
    if value is None or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return as_bytes(text.strip()) or None
