"""What OpenSearch and Elasticsearch have in common; they differ in what a vector is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from dsirm_jax.serving.engines.engine import (
    FOUND,
    Document,
    Index,
    Terms,
    json_line,
    json_page,
    numbers,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lucene:
    """Documents for `_bulk`, mappings, and queries whose score is a sum of boosts.

    Attributes:
      settings: of an index with vectors.
      vector_type: mapping of a vector of so many numbers.
    """

    settings: dict[str, Any]
    vector_type: Callable[[int], dict[str, Any]]
    suffix: str = "ndjson"

    def index_files(self, index: Index) -> dict[str, str]:
        keyword = {"type": "keyword"}
        properties: dict[str, Any] = {
            "title": {"type": "text"},
            **dict.fromkeys(("brand", "colour", "category", "sid", "sid_version"), keyword),
            "sid_prefixes": keyword,
        }
        body: dict[str, Any] = {"mappings": {"dynamic": "strict", "properties": properties}}
        if index.dim is not None:
            properties["vector"] = self.vector_type(index.dim)
            if self.settings:
                body = {"settings": self.settings, **body}
        return {"index.json": json_page(body)}

    def document(self, document: Document, *, index: Index) -> str:
        source: dict[str, Any] = {
            **document.fields,
            "sid": document.prefixes[-1],
            "sid_prefixes": list(document.prefixes),
            "sid_version": index.sid_version,
        }
        if document.vector is not None:
            source["vector"] = numbers(document.vector)
        action = {"index": {"_index": index.name, "_id": document.item_id}}
        return f"{json_line(action)}\n{json_line(source)}"

    def query(self, text: str, terms: Terms, *, index: Index) -> str:
        should = [
            {"constant_score": {"filter": _equal("sid_prefixes", prefix), "boost": weight}}
            for prefix, weight in terms.items()
        ]
        version = _equal("sid_version", index.sid_version)
        found = {"should": should, "filter": [version], "minimum_should_match": 1}
        return json_line({"query": text, "body": {"size": FOUND, "query": {"bool": found}}})


def _equal(field: str, value: str) -> dict[str, Any]:
    """Returns a filter in the long form: of the short one, published schemas know nothing."""
    return {"term": {field: {"value": value}}}
