from __future__ import annotations

import numpy as np

from dsirm_jax.relevance.lessons import Lesson, lessons_of


def same(one, other):
    return one.rung == other.rung and all(map(np.array_equal, one[1:], other[1:]))


def test_a_run_by_hand():
    # Splits: train, head, test, head.
    seen = np.array([[True, False, False, False]])
    tested = np.array([False, False, True, False])
    lessons = lessons_of(("no_sid", "full"), seen=seen, tested=tested)
    assert list(lessons) == ["no_sid", "full", "full_on_seen"]
    rows = np.array([False, True, False, True])
    assert same(lessons["no_sid"], Lesson("no_sid", rows, ~seen))
    assert same(lessons["full"], Lesson("full", rows, ~seen))
    on_seen = lessons["full_on_seen"]
    assert same(on_seen, Lesson("full", np.array([True, False, False, False]), seen))


def test_a_crossfit_by_hand():
    # Each half saw other training queries; the last pair is of a query that both saw.
    seen = np.array([[True, False, False, True], [False, True, False, True]])
    tested = np.array([False, False, True, False])
    lessons = lessons_of(("full",), seen=seen, tested=tested)
    full, on_seen = lessons["full"], lessons["full_on_seen"]
    assert full.rows.tolist() == [True, True, False, False]
    assert full.halves[:, full.rows].tolist() == [[False, True], [True, False]]
    assert on_seen.rows.tolist() == [True, True, False, True]
    assert on_seen.halves[:, on_seen.rows].tolist() == [[True, False, True], [False, True, True]]


def test_without_a_full_model_no_head_is_taught_what_stages_saw():
    lessons = lessons_of(("no_sid",), seen=np.array([[True, False]]), tested=np.zeros(2, bool))
    assert list(lessons) == ["no_sid"]
    assert lessons["no_sid"].rows.tolist() == [False, True]
