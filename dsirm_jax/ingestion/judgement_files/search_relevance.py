"""Judgement lists of OpenSearch's Search Relevance Workbench."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import Chunk, Part
from dsirm_jax.ingestion.formats.documents import documents
from dsirm_jax.ingestion.formats.file_starts import FileStart
from dsirm_jax.ingestion.formats.row_chunks import Row, chunks, faulty
from dsirm_jax.ingestion.topics import unused_queries

COLUMNS = {"item_id": "docId", "label": "rating"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchRelevance:
    """Judgement lists of OpenSearch's Search Relevance Workbench, as imported, indexed or exported.

    A list is `{"judgmentRatings": [{"query": …, "ratings": [{"docId": …, "rating": …}]}]}`; a file
    has one or several of them, or the answer of a search for them. A row is a rating; its number is
    its place in the file. Ratings of `LLM_JUDGMENT` and `UBI_JUDGMENT` lists are read likewise.

    Source: https://github.com/opensearch-project/search-relevance.
    """

    title: ClassVar[str] = "Search Relevance Workbench judgements"

    def recognises(self, start: FileStart) -> bool:
        return start.text.lstrip().startswith(("{", "[")) and '"judgmentRatings"' in start.text

    def read(
        self, files: Sequence[str], *, queries: Sequence[str]
    ) -> tuple[list[Part], list[Finding]]:
        parts: list[Part] = [functools.partial(_chunks, file) for file in files]
        return parts, [unused_queries(self.title)] if queries else []


def _chunks(file: str) -> Iterator[Chunk]:
    numbered = enumerate(_ratings(file), 1)
    rows = (_row(number, query, rating) for number, (query, rating) in numbered)
    columns = {"query": "query", **COLUMNS}
    return chunks(rows, file=file, columns=columns)


def _ratings(file: str) -> Iterator[tuple[Any, Any]]:
    """Yields query and rating; what is not as it should be comes without a query."""
    for _, document, line in documents(file):
        lists = document.get("judgmentRatings") if document is not None else None
        if not isinstance(lists, list):
            yield None, line
            continue
        for judged in lists:
            ratings = judged.get("ratings") if isinstance(judged, dict) else None
            if not isinstance(ratings, list):
                yield None, judged
                continue
            yield from ((judged.get("query"), rating) for rating in ratings)


def _row(number: int, query: Any, rating: Any) -> Row:
    if not isinstance(rating, dict) or not isinstance(query, str):
        shown = rating if isinstance(rating, str) else json.dumps(rating, ensure_ascii=False)
        return faulty(number, shown[:400], "no judgmentRatings of query, docId and rating")
    values = {"query": query, "item_id": rating.get("docId"), "label": rating.get("rating")}
    return Row(number, values)
