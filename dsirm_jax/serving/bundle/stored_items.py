"""An item as a catalogue keeps it: one line of JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

STORED_COLUMNS = ("item_id", "title", "text", "brand", "colour", "category")
"""Columns of an item that have a meaning of their own; all others are attributes."""
UNKNOWN = -1
"""Number of an item, or of a category, that is not there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredItem:
    """An item of the catalogue.

    Attributes:
      number: its row in the arrays, from 0.
      item_id: the shop's own id.
      title: as the shop has it.
      text: title, then brand and colour where the title lacks them.
      brand: None where it is not known.
      colour: likewise.
      category: path, coarse to fine; empty where it is not known.
      attributes: the shop's further columns.
    """

    number: int
    item_id: str
    title: str
    text: str
    brand: str | None
    colour: str | None
    category: tuple[str, ...]
    attributes: Mapping[str, Any]


def item_to_json(row: Mapping[str, Any]) -> bytes:
    """Returns what `items.mdb` holds of an item.

    Args:
      row: an item's columns by name.
    """
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=str).encode()


def item_from_json(number: int, value: bytes) -> StoredItem:
    """Undoes `item_to_json`.

    Raises:
      ValueError: it is no item.
    """
    row = json.loads(value)
    known = {name: row.pop(name, None) for name in STORED_COLUMNS}
    known["category"] = tuple(known["category"] or ())
    texts = (known["item_id"], known["title"], known["text"], *known["category"])
    optional = (known["brand"], known["colour"])
    if not all(isinstance(text, str) for text in (*texts, *filter(None, optional))):
        raise ValueError("an item's column is no text")
    return StoredItem(number=number, **known, attributes=row)
