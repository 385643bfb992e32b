import numpy as np
import pytest

from dsirm_jax.data.vectors import write_vectors
from dsirm_jax.encoder.kinds.precomputed import Precomputed
from dsirm_jax.io.errors import InputError


def test_vectors_of_further_queries_are_those_of_the_file_or_refused(tmp_path):
    path = tmp_path / "queries.parquet"
    write_vectors(path, ["mug", "cup", "pot"], np.eye(3, 2) + 1, id_column="query")
    encoder = Precomputed(items="items.parquet", queries=str(path))
    places = {"directory": tmp_path / "encode", "vocabulary": tmp_path / "vocabulary.model"}
    vectors = encoder.query_vectors(["cup", "mug"], **places)
    assert vectors.dtype == np.float32 and vectors.tolist() == [[1, 2], [2, 1]]
    with pytest.raises(InputError, match="no vector for 1 of 2 querys, .*'urn'; add them"):
        encoder.query_vectors(["cup", "urn"], **places)
