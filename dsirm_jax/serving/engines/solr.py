"""Apache Solr 9: commands of its Schema API, documents for `/update/json/docs`, JSON requests.

Source: https://solr.apache.org/guide, "Schema API", "Transforming and Indexing Custom JSON", "JSON
Request API", "The Standard Query Parser" (constant score, `^=`), "Dense Vector Search".
"""

from __future__ import annotations

import dataclasses
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
class Solr:
    """A collection, whose unique key is `id`."""

    suffix: str = "ndjson"

    def index_files(self, index: Index) -> dict[str, str]:
        text = {"name": "title", "type": "text_general", "stored": True}
        plain = [
            {"name": name, "type": "string", "stored": True, "docValues": True}
            for name in ("brand", "colour", "category", "sid", "sid_version")
        ]
        terms = {"name": "sid_prefixes", "type": "strings", "indexed": True, "multiValued": True}
        commands: dict[str, Any] = {}
        fields = [text, *plain, terms]
        if index.dim is not None:
            commands["add-field-type"] = {
                "name": "item_vector",
                "class": "solr.DenseVectorField",
                "vectorDimension": index.dim,
                "similarityFunction": "cosine",
            }
            fields.append(
                {"name": "vector", "type": "item_vector", "indexed": True, "stored": True}
            )
        return {"schema.json": json_page(commands | {"add-field": fields})}

    def document(self, document: Document, *, index: Index) -> str:
        source: dict[str, Any] = {
            "id": document.item_id,
            **document.fields,
            "sid": document.prefixes[-1],
            "sid_prefixes": list(document.prefixes),
            "sid_version": index.sid_version,
        }
        if document.vector is not None:
            source["vector"] = numbers(document.vector)
        return json_line(source)

    def query(self, text: str, terms: Terms, *, index: Index) -> str:
        weighted = " ".join(f'"{prefix}"^={weight}' for prefix, weight in terms.items())
        body = {
            "query": f"sid_prefixes:({weighted})",
            "filter": [f'sid_version:"{index.sid_version}"'],
            "fields": ["id", "score"],
            "limit": FOUND,
            "params": {"q.op": "OR"},
        }
        return json_line({"query": text, "body": body})


ENGINE = Solr()
