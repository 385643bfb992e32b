"""Elasticsearch, 8 and 9.

Source: https://www.elastic.co/docs, "Bulk API", "Boolean query", "Constant score query", "Dense
vector field type".
"""

from __future__ import annotations

from dsirm_jax.serving.engines.lucene import Lucene

ENGINE = Lucene(
    settings={},
    vector_type=lambda dim: {
        "type": "dense_vector",
        "dims": dim,
        "index": True,
        "similarity": "cosine",
    },
)
