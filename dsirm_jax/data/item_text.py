"""The text that encoders and the generator read of an item: its title, and what it is."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsirm_jax.data.product_type import product_type
from dsirm_jax.data.text import clean
from dsirm_jax.io.checks import check_holds
from dsirm_jax.io.errors import InputError

METADATA = b"item_text"
"""Key of an items table's metadata: the `ItemText` that its texts were made by."""
TYPE, BRAND, COLOUR, SIZE = "type", "brand", "colour", "size"
CATEGORY = "category"
_SIZE = re.compile(
    r"(?<![\w.,])\d+(?:[.,]\d+)?[ -]?"
    r"(?:mm|cm|m|km|in|inch|inches|ft|mg|g|kg|oz|lbs?|ml|cl|l|gal|qt|mb|gb|tb|w|v|mah|k?hz|ghz|mp)"
    r"(?!\w)",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ItemText:
    """What an item's text says beside its title.

    Attributes:
      attributes: named before the title, in this order, where they are known: "type", the last
        level of the category, or the product type of the title; "brand" and "colour"; "size", the
        amounts with a unit in the title; or another column of texts of the items table.
      title_language: of titles, for product types, ISO 639-1; None: they give none.

    Raises:
      InputError: the attributes are no texts, or one stands there twice.
    """

    attributes: tuple[str, ...] = ()
    title_language: str | None = None

    def __post_init__(self) -> None:
        given: Any = self.attributes
        are_names = isinstance(given, Sequence) and not isinstance(given, str)
        check_holds(
            are_names
            and all(isinstance(name, str) and name for name in given)
            and len(set(given)) == len(given),
            binding="ItemText.attributes",
            value=given,
            remedy="names of attributes, each once, such as ('type', 'brand', 'colour', 'size')",
        )
        object.__setattr__(self, "attributes", tuple(given))

    def of(self, row: Mapping[str, Any]) -> str:
        """Returns the text of an item.

        Args:
          row: columns of `schema.RAW_ITEMS`, cleaned, and further ones.

        Returns:
          `NAME: VALUE; ` of every attribute that is known, the title, and behind it the brand and
          colour that it does not name, unless they are attributes. Source: attributes as keywords
          of the embedded text, OneSearch (arXiv 2509.03236); the form is this project's.
        """
        title = row["title"]
        values = (
            (name, attribute(name, row, language=self.title_language)) for name in self.attributes
        )
        named = [f"{name}: {value}; " for name, value in values if value]
        lower = title.lower()
        others = (row[name] for name in (BRAND, COLOUR) if name not in self.attributes)
        behind = [name for name in others if name and name.lower() not in lower]
        return "".join(named) + " ".join([title, *behind])

    def columns(self, extras: Sequence[str]) -> tuple[str, ...]:
        """Returns the columns beside the title that `of` reads.

        Args:
          extras: columns of the items table beside those of `schema.RAW_ITEMS`.

        Raises:
          InputError: an attribute is neither one of them nor one that there always is.
        """
        read = columns_of(self.attributes, known=(*extras, BRAND, COLOUR, CATEGORY))
        return tuple(dict.fromkeys([BRAND, COLOUR, *read]))

    def metadata(self) -> dict[bytes, bytes]:
        """Returns what a table of items says of it, see `item_text_in`: nothing of `TITLE`."""
        return {} if self == TITLE else {METADATA: json.dumps(dataclasses.asdict(self)).encode()}


def attribute(name: str, row: Mapping[str, Any], *, language: str | None) -> str | None:
    """Returns an attribute of an item, None where it is not known; see `ItemText.attributes`.

    Args:
      name: of the attribute.
      row: the columns that `columns_of` names, and the title.
      language: of the title, for its product type.
    """
    value = row.get(name)
    if isinstance(value, str):
        return clean(value) or None
    if name == TYPE:
        path = row[CATEGORY]
        return path[-1] if path else product_type(row["title"], language=language)
    if name == SIZE:
        return ", ".join(dict.fromkeys(_SIZE.findall(row["title"]))) or None
    return None


def columns_of(attributes: Sequence[str], *, known: Sequence[str]) -> tuple[str, ...]:
    """Returns the columns that attributes are read from.

    Args:
      attributes: their names.
      known: columns of the items table.

    Raises:
      InputError: an attribute is neither one of them nor one that there always is.
    """
    for name in attributes:
        if name not in (TYPE, SIZE, *known):
            raise InputError(
                f"the items have no attribute {name!r}: bind {TYPE!r}, {SIZE!r} or columns of "
                f"texts of the items table ({', '.join(known)})"
            )
    path = [CATEGORY] if TYPE in attributes else []
    return tuple(dict.fromkeys([*(name for name in attributes if name in known), *path]))


TITLE = ItemText()
"""The title, then the brand and colour that it does not name."""


def item_text_in(table: Path) -> ItemText:
    """Returns what the texts of `prepare/items.parquet` were made by, else `TITLE`."""
    import pyarrow.parquet as pq

    said = (pq.read_schema(table).metadata or {}).get(METADATA)
    return ItemText(**json.loads(said)) if said else TITLE
