"""TREC qrels, and those of BEIR."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import Chunk, Part
from dsirm_jax.ingestion.formats.file_starts import FileStart, file_start, numbered_lines
from dsirm_jax.ingestion.formats.row_chunks import Row, chunks, faulty
from dsirm_jax.ingestion.topics import are_ids, named_queries, read_topics
from dsirm_jax.io.errors import InputError

COLUMNS = {"query": "topic", "item_id": "docid", "label": "grade"}

_LINE = re.compile(r"(.*\S)\s+(\S+)\s+(\S+)\s+([+-]?\d+(?:\.\d+)?)")
_TABBED = re.compile(r"([^\t]*)\t\s*(\S*)\s*\t([^\t]+)\t\s*([+-]?\d+(?:\.\d+)?)\s*")
_BEIR_HEADER = ["query-id", "corpus-id", "score"]
_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
"""Suffixes of files whose header has the names of a table's columns."""
_SAMPLE = 200
_LEAST_SHARE = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Qrels:
    """TREC qrels: `topic iteration docid grade` on a line, separated by white space or tabs.

    BEIR's, a table of query-id, corpus-id and score, are read likewise. A topic is the query itself
    where it has words; topics that are numbers, or ids, need the file of their texts. Items are
    joined by docid.

    Source: https://trec.nist.gov/data/qrels_eng/; https://github.com/beir-cellar/beir.
    """

    title: ClassVar[str] = "TREC qrels"

    def recognises(self, start: FileStart) -> bool:
        lines = start.lines[:_SAMPLE]
        if not lines or _is_beir(start):
            return bool(lines)
        if start.suffix not in _TABLES and _has_header(start):
            lines = lines[1:]
        found = [_match(line) for line in lines]
        fitting = [match for match in found if match and match[2] in ("0", "Q0")]
        return found[0] is not None and len(fitting) >= _LEAST_SHARE * len(lines)

    def read(
        self, files: Sequence[str], *, queries: Sequence[str]
    ) -> tuple[list[Part], list[Finding]]:
        parts: list[Part] = [functools.partial(_chunks, file) for file in files]
        if queries:
            return named_queries(parts, read_topics(queries)), []
        for file in files:
            start = file_start(file)
            is_beir = _is_beir(start)
            topics = _beir_ids(start) if is_beir else _topics(start)
            if topics and (is_beir or are_ids(topics)):
                raise InputError(
                    f"{file}: its topics are numbers or ids, such as {min(topics)!r}, and no texts "
                    "of queries; bind Tables.queries (in tables.gin QUERIES) to the file of "
                    "their texts, such as a TSV of topic and text"
                )
        text = f"topics of {', '.join(files[:3])} are taken as the queries' texts"
        return parts, [Finding(table="judgements", text=text, is_fault=False)]


def _is_beir(start: FileStart) -> bool:
    return bool(start.lines) and start.lines[0].split("\t") == _BEIR_HEADER


def _has_header(start: FileStart) -> bool:
    head, first = [*start.lines, "", ""][:2]
    is_name = _match(head) is None and not any(map(str.isdigit, head))
    return is_name and _match(first) is not None


def _beir_ids(start: FileStart) -> set[str]:
    return {line.split("\t")[0] for line in start.lines[1:]}


def _topics(start: FileStart) -> set[str]:
    return {match[1] for line in start.lines if (match := _match(line))}


def _match(line: str) -> re.Match[str] | None:
    return (_TABBED if line.count("\t") == 3 else _LINE).fullmatch(line)


def _chunks(file: str) -> Iterator[Chunk]:
    return chunks(_rows(file), file=file, columns=COLUMNS)


def _rows(file: str) -> Iterator[Row]:
    lines = numbered_lines(file)
    start = file_start(file)
    is_beir = _is_beir(start)
    if is_beir or _has_header(start):
        next(lines)
    for number, line in lines:
        if is_beir:
            yield _beir_row(number, line)
            continue
        match = _match(line.strip())
        if match is None:
            count = len(line.split("\t" if "\t" in line else None))
            reason = f"{count} values where qrels have topic, iteration, docid and a number"
            yield faulty(number, line, reason)
        else:
            topic, _, docid, grade = match.groups()
            yield Row(number, {"query": topic, "item_id": docid, "label": grade})


def _beir_row(number: int, line: str) -> Row:
    cells = line.strip("\r\n").split("\t")
    if len(cells) != 3:
        return faulty(number, line, f"{len(cells)} values where the header has 3")
    return Row(number, dict(zip(("query", "item_id", "label"), cells)))
