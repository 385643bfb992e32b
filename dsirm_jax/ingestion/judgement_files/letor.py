"""LETOR, SVMrank and RankLib files of judged feature vectors."""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import Chunk, Part
from dsirm_jax.ingestion.formats.file_starts import FileStart, file_start, numbered_lines
from dsirm_jax.ingestion.formats.row_chunks import Row, chunks, faulty
from dsirm_jax.ingestion.topics import named_queries, read_topics
from dsirm_jax.io.errors import InputError

COLUMNS = {"query": "text behind the docid", "item_id": "docid", "label": "grade"}

_LINE = re.compile(r"([+-]?\d+(?:\.\d+)?)\s+qid:(\S+?)(?=\s|#|$)([^#]*)(?:#(.*))?")
_HEADER = re.compile(r"#\s*qid:(\S+?):\s*(.*\S)")
_WEIGHT = re.compile(r"\*\d+(?:\.\d+)?$")
_DOCID = re.compile(r"\s*doc_?(?:id|no)\s*[=:]\s*(\S+)(.*)", re.IGNORECASE)
_QUERY = re.compile(r"\s*query\s*[=:]\s*(.*\S)", re.IGNORECASE)
_SETTINGS = re.compile(r"(?:\s*\w+\s*=\s*\S+)+\s*")
_SAMPLE = 200
_LEAST_SHARE = 0.9
_TITLES_SHARE = 0.7
"""Texts a row of one qid, above which they are titles of items."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Letor:
    """Judged feature vectors, `grade qid:N feature:value … # comment` on a line.

    The comment names the item: `# docid`, `# docid text` (RankLib, Quepid) or `#docid = X …`
    (LETOR). The query of a row is, in this order, what the file of topics has for its qid, what the
    head of the file has for it (`# qid:N: text`, as Elasticsearch's learning to rank writes), or
    the text behind the docid, whatever the qid. Features are left out.

    Source: https://www.cs.cornell.edu/people/tj/svm_light/svm_rank.html;
    https://www.microsoft.com/en-us/research/project/letor-learning-rank-information-retrieval/.
    """

    title: ClassVar[str] = "LETOR or SVMrank"

    def recognises(self, start: FileStart) -> bool:
        lines = [line for line in start.lines[:_SAMPLE] if not line.startswith("#")]
        fitting = sum(_LINE.fullmatch(line) is not None for line in lines)
        return bool(lines) and fitting >= _LEAST_SHARE * len(lines)

    def read(
        self, files: Sequence[str], *, queries: Sequence[str]
    ) -> tuple[list[Part], list[Finding]]:
        findings = []
        parts: list[Part] = []
        for file in files:
            start = file_start(file)
            texts = _head_texts(start)
            if queries or texts:
                _items_named(start)
                by_qid = not queries
            else:
                findings += _comments(start)
                by_qid = False
            source = None if queries else texts if by_qid else {}
            parts.append(functools.partial(_chunks, file, source))
        return (named_queries(parts, read_topics(queries)) if queries else parts), findings


class _Judged(NamedTuple):
    grade: str
    qid: str
    item_id: str | None
    text: str | None


def _judged(line: str) -> _Judged | None:
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    grade, qid, _, comment = match.groups()
    comment = comment or ""
    named = _DOCID.fullmatch(comment)
    if named is not None:
        item_id, rest = named.groups()
    else:
        # In a comment with tabs an id may have spaces.
        cells = comment.strip().split("\t" if "\t" in comment.strip() else None, 1)
        item_id, rest = (*cells, "", "")[:2]
    query = _QUERY.fullmatch(rest)
    text = query[1] if query else "" if _SETTINGS.fullmatch(rest) else rest.strip()
    return _Judged(grade, qid, item_id.strip() or None, text or None)


def _head_texts(start: FileStart) -> dict[str, str]:
    """Returns the texts of queries in the comments at the head of a file, by qid."""
    found = [match for line in start.lines if (match := _HEADER.fullmatch(line))]
    texts = {match[1]: match[2] for match in found}
    if texts and all(_WEIGHT.search(text) for text in texts.values()):
        return {qid: _WEIGHT.sub("", text) for qid, text in texts.items()}
    return texts


def _items_named(start: FileStart) -> list[_Judged]:
    rows = [row for line in start.lines if (row := _judged(line))]
    if rows and not any(row.item_id for row in rows):
        raise InputError(
            f"{start.file}: no line names its item, as `# docid` behind the features would; "
            "write the ids of items there, or bind Tables.judgements to another file"
        )
    return rows


def _comments(start: FileStart) -> list[Finding]:
    """Checks that texts in comments are queries, and returns what is odd about them."""
    rows = _items_named(start)
    remedy = (
        "bind Tables.queries (in tables.gin QUERIES) to the file of the queries' texts, such as a "
        "TSV of qid and text"
    )
    if rows and not any(row.text for row in rows):
        raise InputError(f"{start.file}: queries are numbers (qid:{rows[0].qid}); {remedy}")
    texts: dict[str, list[str]] = collections.defaultdict(list)
    for row in rows:
        if row.text:
            texts[row.qid].append(row.text)
    several = {qid: list(dict.fromkeys(found)) for qid, found in texts.items()}
    long = [qid for qid, found in texts.items() if len(found) > 2]
    rows_of_long = sum(len(texts[qid]) for qid in long)
    if long and sum(len(several[qid]) for qid in long) > _TITLES_SHARE * rows_of_long:
        qid = long[0]
        raise InputError(
            f"{start.file}: rows of qid:{qid} have the texts {several[qid][0]!r}, "
            f"{several[qid][1]!r} …, which are titles of items rather than one query; {remedy}"
            if len(several[qid]) > 1
            else f"{start.file}: texts behind the docids are titles of items; {remedy}"
        )
    odd = {qid: found for qid, found in several.items() if len(found) > 1}
    if not odd:
        text = f"{start.file}: the text behind a docid is the query"
        return [Finding(table="judgements", text=text, is_fault=False)]
    qid, found = next(iter(odd.items()))
    text = (
        f"{start.file}: {len(odd)} of {len(several)} qids have rows of several texts, such as "
        f"qid:{qid} {found[0]!r} and {found[1]!r}; the text behind the docid is taken as the query;"
        " bind Tables.queries where the qid is right"
    )
    return [Finding(table="judgements", text=text)]


def _chunks(file: str, texts: Mapping[str, str] | None) -> Iterator[Chunk]:
    return chunks(_rows(file, texts), file=file, columns=COLUMNS)


def _rows(file: str, texts: Mapping[str, str] | None) -> Iterator[Row]:
    """Yields the rows; the query is the qid without texts, the comment's where they are empty."""
    for number, line in numbered_lines(file):
        line = line.strip()
        if line.startswith("#"):
            continue
        row = _judged(line)
        if row is None:
            yield faulty(number, line, "no line of grade, qid:N and features")
        elif row.item_id is None:
            yield faulty(number, line, "no docid behind a #")
        else:
            query = row.qid if texts is None else texts.get(row.qid) if texts else row.text
            yield Row(number, {"query": query, "item_id": row.item_id, "label": row.grade})
