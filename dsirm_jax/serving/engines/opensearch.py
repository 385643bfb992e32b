"""OpenSearch, 2.x and 3.x; vectors by its k-NN plugin.

Source: https://docs.opensearch.org, "Bulk", "Boolean query", "Constant score query", "k-NN vector".
"""

from __future__ import annotations

from dsirm_jax.serving.engines.lucene import Lucene

ENGINE = Lucene(
    settings={"index": {"knn": True}},
    vector_type=lambda dim: {
        "type": "knn_vector",
        "dimension": dim,
        "method": {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
    },
)
