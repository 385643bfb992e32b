"""TREC runs: results of a search, which nobody has judged, and which may be scored."""

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

COLUMNS = {"query": "topic", "item_id": "docid"}

_LINE = re.compile(r"(.*\S)\s+(?:Q0|q0|0)\s+(\S+)\s+\d+\s+[+-]?[\d.]+(?:[eE][+-]?\d+)?\s+\S+")
_SAMPLE = 200
_LEAST_SHARE = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrecRun:
    """A TREC run, `topic Q0 docid rank score tag` on a line.

    It has no judgements, and is refused as such; its pairs may be scored.
    """

    title: ClassVar[str] = "TREC run"

    def recognises(self, start: FileStart) -> bool:
        lines = start.lines[:_SAMPLE]
        fitting = sum(_LINE.fullmatch(line) is not None for line in lines)
        return bool(lines) and fitting >= _LEAST_SHARE * len(lines)

    def read(
        self, files: Sequence[str], *, queries: Sequence[str]
    ) -> tuple[list[Part], list[Finding]]:
        raise InputError(
            f"{files[0]}: is a TREC run (topic Q0 docid rank score tag), whose results nobody has "
            "judged; bind Tables.judgements to the qrels"
        )

    def pairs(self, file: str, *, queries: str | None) -> list[Part]:
        """Returns the pairs of query and item in a file, to be scored.

        Args:
          file: path or URL.
          queries: file of the queries' texts by topic; None: topics are the texts.

        Raises:
          InputError: topics are numbers or ids, and there is no file of their texts.
        """
        parts: list[Part] = [functools.partial(_chunks, file)]
        if queries:
            return named_queries(parts, read_topics([queries]))
        found = map(_LINE.fullmatch, map(str.strip, file_start(file).lines))
        topics = {match[1] for match in found if match}
        if are_ids(topics):
            raise InputError(
                f"{file}: its topics are numbers or ids, such as {min(topics)!r}, and no texts of "
                "queries; name the file of their texts: --queries=FILE, such as a TSV of topic and "
                "text"
            )
        return parts


def _chunks(file: str) -> Iterator[Chunk]:
    return chunks(_rows(file), file=file, columns=COLUMNS)


def _rows(file: str) -> Iterator[Row]:
    for number, line in numbered_lines(file):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            yield faulty(number, line, "no line of a run: topic Q0 docid rank score tag")
        else:
            yield Row(number, {"query": match[1], "item_id": match[2]})
