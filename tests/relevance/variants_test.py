from __future__ import annotations

import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance import variants
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.sids.prefix_match import MIN_LOG_PROB, Beams, match_depth


def test_the_first_beams_alone_decide():
    beams = Beams(
        sids=np.array([[[0, 1, 2], [1, 1, 1], [2, 0, 0]]]),
        log_probs=np.log([[0.5, 0.25, 0.125]]),
        valid=np.array([[True, True, True]]),
    )
    item = np.array([[[1, 1, 0]]])  # the second beam agrees in two codes
    depths = [
        match_depth(variants.first_beams(beams, most=most), item).item() for most in (1, 2, 3)
    ]
    assert depths == [0.0, 0.5, 0.5]


def test_the_querys_own_codes_are_one_certain_beam():
    codes = np.array([[3, 1], [0, 2]])
    beam = variants.own_beam(codes)
    assert beam.sids.tolist() == [[[3, 1]], [[0, 2]]]
    assert np.exp(beam.log_probs).tolist() == [[1.0], [1.0]] and beam.valid.all()
    found = variants.own_log_probs(codes[[0, 0, 1]], np.array([[3, 1], [3, 0], [3, 2]]))
    assert found.tolist() == [[0, 0], [0, MIN_LOG_PROB], [MIN_LOG_PROB, MIN_LOG_PROB]]


@pytest.mark.parametrize(
    "tags",
    [(0,), (6,), ("own", "one"), (1, 1), (True,), (1.0,)],
    ids=["no beams", "too many beams", "unknown name", "repeated", "bool", "float"],
)
def test_variants_that_cannot_be_computed_are_refused(tags):
    variants.check_tags((1, 5, "own"), beams=5)
    variants.check_tags((6,), beams=None)
    with pytest.raises(InputError, match=r"match\.run\.beams"):
        variants.check_tags(tags, beams=5)


def test_a_tag_parts_names_and_groups():
    table = FeatureTable(names=("a", "b"), groups=("x", "x"), values=np.zeros((1, 2), np.float32))
    found = variants.tagged(table, 5)
    assert (found.names, found.groups) == (("a@5", "b@5"), ("x@5", "x@5"))
