"""Products in several rows, of which the first alone has what they share.

An export of a shop has a row for each variant (size, colour), with title, brand and category in
the product's first row only (Shopify's CSV). Empty cells are filled down within the product.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence

import pyarrow as pa

from dsirm_jax.data.schema import Chunk, Part

GROUP = "_variant_group"
"""Column of a chunk that says of which product a row is."""

NO_ID = "row of a product without an id of its own"
"""Reason of a row that is no item: such a one has a further picture of the product above."""


def filled_down(parts: Sequence[Part]) -> Part:
    """Returns one part of all those of a file, whose empty cells are filled down.

    A cell is filled from the row before it, if both have the same group, and so on; `item_id`
    never is. A row without a group is left as it is.

    Args:
      parts: of one file, in order, whose chunks have the column `GROUP`.
    """
    return functools.partial(_filled, tuple(parts))


def _filled(parts: Sequence[Part]) -> Iterator[Chunk]:
    group: object = None
    above: dict[str, object] = {}
    for chunk in itertools.chain.from_iterable(part() for part in parts):
        table, unreadable = chunk.table, dict(chunk.unreadable)
        names = [name for name in table.column_names if name not in (GROUP, "item_id")]
        columns = {name: table[name].to_pylist() for name in names}
        ids = table["item_id"].to_pylist()
        for row, own in enumerate(table[GROUP].to_pylist()):
            if row in chunk.unreadable:
                continue
            is_further = own == group and not _is_empty(own)
            if not is_further:
                group, above = own, {}
            if is_further and _is_empty(ids[row]):
                unreadable[row] = (f"{_text(own)}", NO_ID)
            for name, values in columns.items():
                if not _is_empty(values[row]):
                    above[name] = values[row]
                elif is_further:
                    values[row] = above.get(name)
        arrays = {
            name: _column(columns[name], table[name].type) if name in columns else table[name]
            for name in table.column_names
            if name != GROUP
        }
        yield dataclasses.replace(chunk, table=pa.table(arrays), unreadable=unreadable)


def _column(values: list, type_: pa.DataType) -> pa.Array:
    # A chunk that had no values at all may be filled from the one before.
    return pa.array(values, None if pa.types.is_null(type_) else type_)


def _is_empty(value: object) -> bool:
    if isinstance(value, (str, bytes)):
        return not value.strip()
    return value is None or value == []


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
