"""JSON documents of a file, however they are laid out there."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from dsirm_jax.ingestion.formats.file_starts import numbered_lines
from dsirm_jax.io.errors import InputError

_BULK = ({"index"}, {"create"}, {"update"}, {"delete"})


def documents(file: str) -> Iterator[tuple[int, Any, str]]:
    """Yields the documents of a JSON file, one at a time where each stands on a line of its own.

    A file is one document, an array of them, several after each other, JSON lines, the answer of a
    search (`hits.hits`) or a bulk request; the `_source` of a hit stands for it.

    Yields:
      Number of the line, or of the document, from 1; the document, None where it is no JSON object;
      and the line, for messages.

    Raises:
      InputError: the file cannot be read, or is no JSON.
    """
    lines = numbered_lines(file)
    line_number, first = next(lines, (1, ""))
    document = object_of(first)
    if document is None:
        rest = "".join(itertools.chain([first], (line for _, line in lines)))
        for place, value in enumerate(_values(rest, file), 1):
            yield place, _source(value), json.dumps(value, ensure_ascii=False)[:400]
        return
    place = 0
    for number, line in itertools.chain([(line_number, first)], lines):
        document = object_of(line)
        if document is not None and document.keys() in _BULK:
            continue
        hits = _hits(document)
        if hits is None:
            yield number, _source(document), line
            continue
        for hit in hits:
            place += 1
            yield place, _source(hit), json.dumps(hit, ensure_ascii=False)[:400]


def member(document: Mapping[str, Any], path: str) -> Any:
    """Returns a member of a document, of one within it, or one that is called by its whole path.

    Example:
      >>> member({"object": {"id": 7}}, "object.id"), member({"object.id": 7}, "object.id")
      (7, 7)
    """
    if path in document:
        return document[path]
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def object_of(text: str) -> dict[str, Any] | None:
    """Returns the JSON object that a text is, None where it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _values(text: str, file: str) -> list[Any]:
    decoder, place, values = json.JSONDecoder(), 0, []
    try:
        while place < len(text):
            if text[place].isspace() or text[place] == ",":
                place += 1
                continue
            value, place = decoder.raw_decode(text, place)
            hits = _hits(value)
            values += value if isinstance(value, list) else [value] if hits is None else hits
    except (ValueError, RecursionError) as error:
        line = text.count("\n", 0, getattr(error, "pos", place)) + 1
        raise InputError(
            f"{file}: not valid JSON near line {line}: {' '.join(str(error).split())[:200]}"
        ) from error
    return values


def _hits(value: Any) -> list[Any] | None:
    hits = member(value, "hits.hits") if isinstance(value, dict) else None
    return hits if isinstance(hits, list) else None


def _source(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    source = value.get("_source")
    return source if isinstance(source, dict) else value
