"""Vespa 8: a schema, documents for `vespa feed`, queries in YQL whose score is a dot product.

Source: https://docs.vespa.ai, "Schema reference", "Document JSON format", "Multivalue query
operators" (dotProduct, rawScore), "Approximate nearest neighbor search".
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from dsirm_jax.serving.engines.engine import (
    FOUND,
    SCALE,
    Document,
    Index,
    Terms,
    json_line,
    numbers,
)

WHOLE = 10**SCALE
"""Weights of a dot product are whole numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vespa:
    """A document type of the index's name, in a namespace of the same."""

    suffix: str = "jsonl"

    def index_files(self, index: Index) -> dict[str, str]:
        name = _identifier(index.name)
        vector = "" if index.dim is None else _VECTOR.replace("DIM", str(index.dim))
        nearest = "" if index.dim is None else _NEAREST.replace("DIM", str(index.dim))
        schema = _SCHEMA.replace("NAME", name).replace("VECTOR", vector)
        return {f"{name}.sd": schema.replace("NEAREST", nearest).replace("WHOLE", str(WHOLE))}

    def document(self, document: Document, *, index: Index) -> str:
        name = _identifier(index.name)
        fields: dict[str, Any] = {
            "item_id": document.item_id,
            **document.fields,
            "sid": document.prefixes[-1],
            "sid_prefixes": dict.fromkeys(document.prefixes, 1),
            "sid_version": index.sid_version,
        }
        if document.vector is not None:
            fields["vector"] = {"values": numbers(document.vector)}
        return json_line({"put": f"id:{name}:{name}::{document.item_id}", "fields": fields})

    def query(self, text: str, terms: Terms, *, index: Index) -> str:
        weights = json_line({prefix: round(WHOLE * weight) for prefix, weight in terms.items()})
        yql = (
            f"select item_id from {_identifier(index.name)} where "
            f"dotProduct(sid_prefixes, {weights}) and sid_version contains '{index.sid_version}'"
        )
        body = {"yql": yql, "ranking": "sid", "hits": FOUND}
        return json_line({"query": text, "body": body})


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)


_VECTOR = """
        field vector type tensor<float>(x[DIM]) {
            indexing: attribute | index
            attribute {
                distance-metric: angular
            }
        }"""
_NEAREST = """
    rank-profile sid_and_vector inherits sid {
        inputs {
            query(vector) tensor<float>(x[DIM])
        }
        first-phase {
            expression: rawScore(sid_prefixes) / WHOLE + closeness(field, vector)
        }
    }"""
_SCHEMA = """schema NAME {
    document NAME {
        field item_id type string {
            indexing: summary | attribute
        }
        field title type string {
            indexing: summary | index
        }
        field brand type string {
            indexing: summary | attribute
        }
        field colour type string {
            indexing: summary | attribute
        }
        field category type string {
            indexing: summary | attribute
        }
        field sid type string {
            indexing: summary | attribute
        }
        field sid_prefixes type weightedset<string> {
            indexing: summary | attribute
            attribute: fast-search
        }
        field sid_version type string {
            indexing: summary | attribute
        }VECTOR
    }
    rank-profile sid {
        first-phase {
            expression: rawScore(sid_prefixes) / WHOLE
        }
    }NEAREST
}
"""

ENGINE = Vespa()
