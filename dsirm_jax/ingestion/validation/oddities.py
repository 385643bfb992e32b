"""What is odd in the values of a table's rows, counted while they are checked."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from dsirm_jax.data.findings import Finding

_GARBLED = (
    # Characters of UTF-8 read as Windows-1252: "Ã©" for "é", "â€™" for "’".
    "Ã[¡-¿Œ-œŠšŸŽžƒˆ˜–-•…‰‹›€™\u0080-\u009f]|â€"
)
_REPLACED = "\N{REPLACEMENT CHARACTER}"

_Key = tuple[str, str, str]


def may_have(values: pa.Array, markers: Collection[str]) -> bool:
    """Returns whether a column of texts, or of paths, may have one of some short texts."""
    texts = values.flatten() if pa.types.is_nested(values.type) else values
    longest = 4 * max(map(len, markers), default=0)
    short = pc.utf8_trim_whitespace(texts.filter(pc.less_equal(pc.binary_length(texts), longest)))
    return bool(pc.any(pc.is_in(short, pa.array(list(markers), pa.string()))).as_py())


@dataclasses.dataclass(kw_only=True)
class Oddities:
    """Counts of rows, by kind, column and marker, each with an example.

    Attributes:
      counts: (kind, our column name, marker) to the number of rows.
      examples: the same key to the value that sorts first, whatever the order of the rows.
    """

    counts: collections.Counter[_Key] = dataclasses.field(default_factory=collections.Counter)
    examples: dict[_Key, str] = dataclasses.field(default_factory=dict)

    def add(self, kind: str, column: str, rows: int, example: str, marker: str = "") -> None:
        key = kind, column, marker
        self.counts[key] += rows
        self.examples[key] = min(example, self.examples.get(key, example))

    def update(self, other: Oddities) -> None:
        for key, rows in other.counts.items():
            kind, column, marker = key
            self.add(kind, column, rows, other.examples[key], marker)

    def add_where(self, kind: str, column: str, values: pa.Array, odd: pa.Array) -> None:
        """Counts the rows of a column of text that are odd."""
        if pc.any(odd).as_py():
            shown = values.filter(odd)
            self.add(kind, column, len(shown), pc.min(shown).as_py())

    def add_garbled(self, column: str, texts: pa.Array) -> None:
        """Counts texts whose characters an earlier conversion spoilt."""
        # A search for plain characters first, which is cheap.
        if any(pc.any(pc.match_substring(texts, mark)).as_py() for mark in ("Ã", "â€")):
            self.add_where("garbled", column, texts, pc.match_substring_regex(texts, _GARBLED))
        self.add_where("replaced", column, texts, pc.match_substring(texts, _REPLACED))


def oddity_findings(
    oddities: Oddities, *, table: str, rows: int, columns: Mapping[str, str]
) -> Iterator[Finding]:
    """Yields a line for each oddity, in a fixed order.

    Args:
      oddities: those of all rows.
      table: items or judgements.
      rows: number of rows read.
      columns: our column name to the user's.
    """
    for key in sorted(oddities.counts):
        kind, column, marker = key
        name, share = columns.get(column, column), f"in {oddities.counts[key]} of {rows} rows"
        example = repr(oddities.examples[key][:80])
        text, is_fault = {
            "comma": (
                f"{name} has a decimal comma {share} (such as {example}); to read them otherwise, "
                f"bind {table}/dialect.Dialect.decimal",
                False,
            ),
            "garbled": (
                f"{name} looks like UTF-8 that was read as Windows-1252 {share} (such as "
                f"{example}): mend the export",
                True,
            ),
            "marker": (
                f"{name} is {marker!r} {share} and is kept as text; leave such rows out if it "
                "stands for a missing value",
                True,
            ),
            "missing": (
                f"{name} is {marker!r} {share}: read as missing; bind prepare.run.missing = () to "
                "keep such texts",
                True,
            ),
            "replaced": (
                f"{name} has the replacement character {_REPLACED!r} {share} (such as {example}), "
                "which stands for characters that an earlier conversion lost: mend the export",
                True,
            ),
            "unclosed": (
                f"a quote begins a value and does not end it {share} (such as {example}): it is "
                f"text; if backslashes or other quoting is meant, bind {table}/dialect.Dialect",
                True,
            ),
        }[kind]
        yield Finding(table=table, text=text, is_fault=is_fault)
