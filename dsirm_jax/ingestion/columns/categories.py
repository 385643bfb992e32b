"""Category paths that are one text: what parts their levels, and the deepest of several paths."""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import Part

DEFAULT = " > "
LITERAL = "[]"
"""Stands for the separator where a path is written as a list of Python or JSON."""
COMMA = ", "
_BETWEEN_PATHS = (COMMA, ",", "|", ";", "\n")
"""What may stand between the paths of an item that has several (WooCommerce, Magento)."""

_CLEAR = ("&gt;", "->", "=>", ">", " » ", "»", " › ", "›", " → ", "→", "::", " / ", "|", "\\")
"""Rare within the name of one category: half of the categories are enough."""
_UNCLEAR = ("/", " - ", ";", ",")
"""Common within names: all but a few must have them, and what they part must recur."""
CLEAR_SHARE, UNCLEAR_SHARE, ASKED_SHARE = 0.5, 0.9, 0.2

SAMPLE = 10_000
"""Categories that are looked at."""
LONGEST_LITERAL = 10_000
# NumPy writes no commas between its texts, and Python reads two such texts as one.
_ADJACENT = re.compile(r"""(?<=['"])\s+(?=['"])""")
_RECURRING_TAILS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths:
    """How category paths are written.

    Attributes:
      separator: between the levels of a path; `LITERAL` where it is a list of Python or JSON.
      several: between several paths, of which the deepest, first of equals, is read; None: a cell
        is one path.
    """

    separator: str = DEFAULT
    several: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether a cell is one path, parted by a separator."""
        return self.separator != LITERAL and self.several is None

    def levels(self, cell: bytes) -> list[bytes]:
        """Returns the path of a cell, from coarse to fine; its bytes may be no UTF-8."""
        return _levels(cell, self)


@functools.lru_cache(maxsize=1 << 16)
def _levels(cell: bytes, paths: Paths) -> list[bytes]:
    text = cell.decode("utf-8", "surrogateescape")
    if paths.separator == LITERAL:
        levels = [text] if (path := _literal(text)) is None else _deepest(path)
    else:
        parts = [text] if paths.several is None else text.split(paths.several)
        levels = max((part.split(paths.separator) for part in parts), key=len)
    return [level.encode("utf-8", "surrogateescape") for level in levels]


def _deepest(path: list[str]) -> list[str]:
    """Returns a path; of a list of whole paths the deepest, the first of equals."""
    if not any(DEFAULT in level for level in path):
        return path
    return max((level.split(DEFAULT) for level in path), key=len)


def path_of(levels: Sequence[bytes]) -> list[bytes]:
    """Returns the path that a list is, or the deepest of the whole paths that it holds."""
    texts = [level.decode("utf-8", "surrogateescape") for level in levels]
    return [level.encode("utf-8", "surrogateescape") for level in _deepest(texts)]


def _literal(text: str) -> list[str] | None:
    """Returns a list of texts, or the longest of a list of such lists; None for anything else."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")) or len(text) > LONGEST_LITERAL:
        return None
    value: object = None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text if read is json.loads else _ADJACENT.sub(", ", text))
            break
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    lists = [value] if _is_path(value) else value
    if not isinstance(lists, list) or not all(map(_is_path, lists)):
        return None
    return max(lists, key=len, default=[])


def _is_path(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(level, str) for level in value)


def paths_of(
    parts: Sequence[Part], *, separator: str | None, several: str | None, binding: str
) -> tuple[Paths, list[Finding]]:
    """Returns how the category paths of items are written, and what is to be said of it.

    Args:
      parts: the raw items, of which the first chunks of the first and the last are looked at.
      separator: as bound; None: `DEFAULT` where any category has it, else what half have.
      several: as bound; None: a comma where one path of an item is the beginning of another, or
        many end alike.
      binding: what comes before the names of these two for the user, such as `Tables.`.
    """
    columns = [
        column for number in {0: None, len(parts) - 1: None} for column in _sampled(parts, number)
    ]
    cells = [cell for column in columns if is_text(column.type) for cell in _texts(column)]
    paths, findings = detect(cells, separator=separator, several=several, binding=binding)
    if paths.separator == DEFAULT and any(
        is_list(column.type) and has_whole_paths(column) for column in columns
    ):
        _say(findings, f"lists hold whole paths, parted by {DEFAULT!r}; the deepest is read", ())
    return paths, findings


def _sampled(parts: Sequence[Part], number: int) -> list[pa.ChunkedArray]:
    chunk = next(iter(parts[number]()), None) if parts else None
    if chunk is None or "category" not in chunk.table.column_names:
        return []
    column = chunk.table["category"].slice(0, SAMPLE)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return [column]


def _texts(column: pa.ChunkedArray) -> list[str]:
    # Text may be no UTF-8, whatever its type says.
    cells = column.cast(pa.large_binary()).drop_null().to_pylist()
    return [text for cell in cells if (text := cell.decode("utf-8", "replace")).strip()]


def is_list(type_: pa.DataType) -> bool:
    """Returns whether values of an Arrow type are lists of texts."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(has_type(type_) for has_type in lists) and is_text(type_.value_type)


def has_whole_paths(column: pa.ChunkedArray) -> bool:
    """Returns whether an element of a column of lists is a path of its own."""
    levels = pc.list_flatten(column).cast(pa.large_binary())
    return pc.any(pc.match_substring(levels, DEFAULT)).as_py() is True


def is_text(type_: pa.DataType) -> bool:
    """Returns whether values of an Arrow type are texts, or bytes that may be one."""
    return any(
        has_type(type_)
        for has_type in (
            *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
            *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
        )
    )


def detect(
    cells: Sequence[str], *, separator: str | None, several: str | None, binding: str
) -> tuple[Paths, list[Finding]]:
    """Returns how categories are written; see `paths_of`.

    Args:
      cells: some of them, none empty.
      separator: see there.
      several: see there.
      binding: see there.
    """
    findings: list[Finding] = []
    say = functools.partial(_say, findings)
    name = f"{binding}category_separator"
    if separator is None:
        separator = _separator(cells, say, name=name)
    elif cells and separator != LITERAL and not any(separator in cell for cell in cells):
        say(f"no category of {len(cells)} has {separator!r}, the {name}", cells[:1], fault=True)
    if separator != LITERAL:
        _ask_for_others(cells, separator, say, name=name)
    if several is None and separator != LITERAL:
        several = _several(cells, separator, say, name=f"{binding}category_list_separator")
    return Paths(separator=separator, several=several), findings


def _say(findings: list[Finding], text: str, cells: Sequence[str], *, fault: bool = False) -> None:
    example = f"; {cells[0]!r} is an example" if cells else ""
    findings.append(Finding(table="items", text=f"category: {text}{example}", is_fault=fault))


def _separator(cells: Sequence[str], say: Callable[..., None], *, name: str) -> str:
    literals = [_literal(cell) for cell in cells]
    if any(literals) and None not in literals:
        say(f"all {len(cells)} are lists of Python or JSON and read as paths", cells)
        return LITERAL
    if not cells or any(DEFAULT in cell for cell in cells):
        return DEFAULT
    found = {mark: [cell for cell in cells if mark in cell] for mark in (*_CLEAR, *_UNCLEAR)}
    for mark, having in found.items():
        clear = mark in _CLEAR
        if len(having) >= (CLEAR_SHARE if clear else UNCLEAR_SHARE) * len(cells) and (
            clear or _recurs(cells, mark)
        ):
            say(
                f"no category has {DEFAULT!r}, and {len(having)} of {len(cells)} have {mark!r}, "
                f"which is taken to part their levels; bind {name} where that is wrong",
                having,
            )
            return mark
    mark, having = max(found.items(), key=lambda item: len(item[1]))
    if len(having) >= ASKED_SHARE * len(cells):
        say(
            f"no category has {DEFAULT!r}, and {len(having)} of {len(cells)} have {mark!r}; where "
            f"that parts the levels of a path, bind {name}={mark!r}",
            having,
            fault=True,
        )
    return DEFAULT


def _recurs(cells: Iterable[str], mark: str) -> bool:
    """Returns whether the first levels are fewer than half of the paths that they begin."""
    paths = set(cells)
    return len(paths) > 1 and 2 * len({path.split(mark)[0] for path in paths}) <= len(paths)


def _ask_for_others(
    cells: Sequence[str], separator: str, say: Callable[..., None], *, name: str
) -> None:
    """Asks where many categories without the separator have another mark."""
    without = [cell for cell in cells if separator not in cell]
    if len(without) in (0, len(cells)) or len(without) < ASKED_SHARE * len(cells):
        return
    having, mark = max(
        (([cell for cell in without if mark in cell], mark) for mark in _CLEAR),
        key=lambda found: len(found[0]),
    )
    if len(having) < CLEAR_SHARE * len(without):
        return
    say(
        f"{len(having)} of {len(cells)} have {mark!r} and not {separator!r}; where that parts "
        f"levels, write all alike or bind {name}",
        having,
        fault=True,
    )


def _several(
    cells: Sequence[str], separator: str, say: Callable[..., None], *, name: str
) -> str | None:
    """Returns what stands between the paths of an item, where that is without doubt."""
    for mark in _BETWEEN_PATHS:
        having = [cell for cell in cells if mark in cell and separator in cell]
        if mark.strip() == separator.strip() or not having:
            continue
        certain = [cell for cell in having if _has_several(cell, separator, mark)]
        recurring = [] if certain or mark != COMMA else _recurring(having)
        if certain or (recurring and 2 * len(recurring) >= len(having)):
            say(
                f"{len(having)} of {len(cells)} have several paths, parted by {mark!r}; the "
                f"deepest of an item is read, the first of equals; bind {name} where that is wrong",
                certain or recurring,
            )
            return mark
        if recurring:
            say(
                f"{len(recurring)} of {len(cells)} end alike behind {mark!r}, as if they were "
                f"several paths; where they are, bind {name}={mark!r}",
                recurring,
                fault=True,
            )
    return None


def _has_several(cell: str, separator: str, mark: str) -> bool:
    """Returns whether a cell has several paths.

    One is the beginning of another, "Home, Home > kettle", or, where the mark is rare within names,
    all have levels: "Home > kettle|Sale > summer".
    """
    paths = [[level.strip() for level in path.split(separator)] for path in cell.split(mark)]
    begins = any(
        len(one) < len(other) and other[: len(one)] == one
        for one, other in itertools.permutations(paths, 2)
    )
    return begins or ("," not in mark and all(len(path) > 1 for path in paths))


def _recurring(cells: Sequence[str]) -> list[str]:
    """Returns the cells whose end, behind a comma, others have too, behind other beginnings."""
    heads: dict[str, set[str]] = {}
    for cell in cells:
        head, _, tail = cell.rpartition(COMMA)
        heads.setdefault(tail, set()).add(head)
    return [cell for cell in cells if len(heads[cell.rpartition(COMMA)[2]]) >= _RECURRING_TAILS]
