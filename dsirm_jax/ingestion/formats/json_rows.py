"""Rows of JSON: one object a line, or objects that follow each other or stand in an array."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from dsirm_jax.data.schema import Chunk
from dsirm_jax.ingestion.columns.mapping import ColumnMap, present_columns
from dsirm_jax.ingestion.dialect import Dialect
from dsirm_jax.ingestion.formats.encodings import (
    ESCAPE,
    UTF8,
    Encoding,
    decoded,
    opened_utf8,
    read_head,
    told_encoding,
)
from dsirm_jax.ingestion.formats.format import Limits, Opened, Remark, blocks, one_line, readable
from dsirm_jax.io.errors import InputError

_LONGEST = len(r"\ud83d\ude00")
"""Characters of the longest token that is no text or number."""

_SPACE = re.compile(r"[ \t\r\n]*")
_BETWEEN = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")
# JSON has neither NaN nor infinities; Python and others write them for what is missing.
NAMED_ROWS = 100
"""First rows of a file whose columns are known before it is read."""

_DECODER = json.JSONDecoder(parse_constant=lambda _: None)


def open_json(
    file: str, *, mapping: ColumnMap, dialect: Dialect, binding: str | None, limits: Limits
) -> Opened:
    """Opens a file of JSON objects; see `format.Format`."""
    with readable(file, "JSONL"):
        head, is_whole = read_head(file, limits.sample)
        encoding, remarks = told_encoding(head, is_whole=is_whole, dialect=dialect, binding=binding)
        text = decoded(head, encoding).decode(UTF8, ESCAPE)
    is_lines = _is_lines(text, is_whole)
    if not is_lines:
        kind = "an array" if text.lstrip().startswith("[") else "objects of several lines"
        remarks.append(
            Remark(text=f"it is {kind}, no JSON lines; rows are counted by objects", is_bound=False)
        )
    rows = functools.partial(_rows, file, mapping, encoding, binding, limits, is_lines)
    return Opened(parts=[rows], names=_names(text, limits, is_lines), remarks=remarks)


def _names(text: str, limits: Limits, is_lines: bool) -> list[str]:
    """Returns the names in the first objects of a file, by its head."""
    source = io.BytesIO(text.encode(UTF8, ESCAPE))
    rows = _lines(source, "", limits) if is_lines else _values(source, "", limits)
    names: dict[str, None] = {}
    with contextlib.suppress(InputError):  # of what the end of the head cuts
        for _, row in itertools.islice(rows, NAMED_ROWS):
            names.update(dict.fromkeys(_record(row)[0]))
    return list(names)


def _is_lines(text: str, is_whole: bool) -> bool:
    """Whether each line is a value of its own, by the first of them."""
    text = text.lstrip()
    first, _, rest = text.partition("\n")
    value, reason = _parsed(first)
    if reason is None:
        return not (isinstance(value, list) and value and isinstance(value[0], dict)) or bool(
            rest.strip()
        )
    # A broken line is a bad row; the first line of a longer value is none.
    if text.startswith("["):
        inner = text[1:].lstrip()
        return not (inner.startswith("{") and _starts_value(inner, is_whole))
    return not (text.startswith("{") and "\n" in text and _starts_value(text, is_whole))


def _starts_value(text: str, is_whole: bool) -> bool:
    """Whether text begins with an object, which the end of the head may cut."""
    try:
        _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        # A name or an escape may be cut, too.
        is_cut = error.pos >= len(text) - _LONGEST or error.msg.startswith("Unterminated")
        return is_cut and not is_whole
    except (ValueError, RecursionError):
        return False
    return True


def _rows(
    file: str,
    mapping: ColumnMap,
    encoding: Encoding,
    binding: str | None,
    limits: Limits,
    is_lines: bool,
) -> Iterator[Chunk]:
    seen: set[str] = set()
    with (
        readable(file, "JSONL"),
        opened_utf8(file, encoding, binding=binding) as (source, _),
    ):
        rows = _lines(source, file, limits) if is_lines else _values(source, file, limits)
        for block in blocks(rows, limits, size=lambda numbered: len(numbered[1])):
            records, unreadable = [], {}
            for position, (_, text) in enumerate(block):
                record, reason = _record(text)
                if reason:
                    unreadable[position] = (text.decode(UTF8, "backslashreplace"), reason)
                records.append(record)
                seen.update(record)
            table = {
                ours: _column([record.get(users) for record in records], ours)
                for ours, users in mapping.columns.items()
            }
            yield Chunk(
                table=pa.table(table),
                file=file,
                columns=mapping.columns,
                unreadable=unreadable,
                rows=[number for number, _ in block],
            )
    if seen:
        present_columns(file, sorted(seen), mapping)


def _lines(source: BinaryIO, file: str, limits: Limits) -> Iterator[tuple[int, bytes]]:
    """Yields lines that are not blank, with their numbers from 1."""
    for number in itertools.count(1):
        line = source.readline(limits.bytes + 1)
        if len(line) > limits.bytes:
            raise InputError(
                f"{file}: row {number} is longer than {limits.bytes} bytes; shorten it"
            )
        if not line:
            return
        if not line.isspace():
            yield number, line


def _values(source: BinaryIO, file: str, limits: Limits) -> Iterator[tuple[int, bytes]]:
    """Yields the text of each value of an array, or of values that follow each other."""
    text, is_array, is_end, place, number = "", False, False, 0, 0
    while True:
        # A value is read again with more of the file where it may have been cut.
        between = (_BETWEEN if number else _SPACE).match(text, place)
        place = between.end() if between else place
        if not number and not is_array and text[place : place + 1] == "[":
            is_array, place = True, place + 1
            continue
        if is_array and text[place : place + 1] == "]":
            text, place = text[place + 1 :], 0
            break
        fault: Exception | None = None
        try:
            _, end = _DECODER.raw_decode(text, place) if place < len(text) else (None, place)
        except (ValueError, RecursionError) as error:
            fault, end = error, place
        if max(end, len(text) if fault else 0) - place > limits.bytes:
            raise InputError(
                f"{file}: row {number + 1} is no JSON value of at most {limits.bytes} bytes"
            )
        if end > place and (end < len(text) or is_end):
            number += 1
            yield number, text[place:end].encode(UTF8, ESCAPE)
            place = end
            continue
        if is_end:
            break
        block = source.read(max(limits.sample, len(text) - place))
        is_end = not block
        text, place = text[place:] + block.decode(UTF8, ESCAPE), 0
    rest = text[place:] + ("" if is_end else source.read(limits.sample).decode(UTF8, ESCAPE))
    if rest.strip() or (is_array and is_end):
        what = one_line(fault) if fault else "the array does not end, or something follows it"
        raise InputError(
            f"{file}: not readable as JSON after row {number}: {what}; write one object a line"
        )


def _record(text: bytes) -> tuple[dict, str | None]:
    """Parses one row of JSON; bytes that are no UTF-8 stay for the check of their column."""
    record, reason = _parsed(text.decode(UTF8, ESCAPE))
    if reason:
        return {}, reason
    return (record, None) if isinstance(record, dict) else ({}, "not a JSON object")


def _parsed(text: str) -> tuple[Any, str | None]:
    try:
        return _DECODER.decode(text), None
    except (ValueError, RecursionError):
        return None, "not valid JSON"


def _column(values: list, name: str) -> pa.Array:
    if name != "category" or not any(isinstance(value, list) for value in values):
        return pa.array(map(_text, values), pa.binary())
    paths = [value if isinstance(value, list) or value is None else [value] for value in values]
    return pa.array(
        [None if path is None else [_text(part) for part in path] for path in paths],
        pa.list_(pa.binary()),
    )


def _text(value: object) -> bytes | None:
    """Returns a JSON value as text, whatever its type: ids may be numbers in some rows."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode(UTF8, "surrogatepass")
