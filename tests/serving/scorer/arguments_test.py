"""Arguments that would be read as something else are refused by name."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.serving import Scorer, ScorerSettings
from dsirm_jax.serving.scorer import arguments

QUERY = "red shoe"


@pytest.fixture(scope="module")
def scorer(made):
    with Scorer.open(made, settings=ScorerSettings(deadline=600.0, warm=())) as scorer:
        yield scorer


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda s: s.score(QUERY, "item 4"),
            "item_ids is 'item 4'; give a list of ids",
            id="ids are one text",
        ),
        pytest.param(
            lambda s: s.score(QUERY, {"item 4", "item 5"}), "item_ids is {", id="ids without order"
        ),
        pytest.param(lambda s: s.score(QUERY, b"item"), "item_ids is b'item'", id="bytes"),
        pytest.param(lambda s: s.score(QUERY, None), "item_ids is None", id="no ids"),
        pytest.param(
            lambda s: s.score(QUERY, ["item 4", 4]), "item_ids has 4; every id", id="id a number"
        ),
        pytest.param(
            lambda s: s.score(QUERY, ["item 4", float("nan")]), "item_ids has nan", id="id NaN"
        ),
        pytest.param(
            lambda s: s.score(QUERY, ["\ud800"]),
            r"item_ids has '\\ud800', which has half a surrogate",
            id="id no Unicode",
        ),
        pytest.param(lambda s: s.described("item 4"), "item_ids is 'item 4'", id="described"),
        pytest.param(lambda s: s.score(7, []), "query is 7; give a text", id="query a number"),
        pytest.param(lambda s: s.query_sids(None), "query is None", id="no query"),
        pytest.param(lambda s: s.candidates(["red"]), r"query is \['red'\]", id="query a list"),
        pytest.param(
            lambda s: s.query_sids("a\udfff"), "which has half a surrogate", id="query no Unicode"
        ),
        *(
            pytest.param(
                lambda s, deadline=deadline: s.query_sids(QUERY, deadline=deadline),
                f"deadline is {re.escape(repr(deadline))}; give seconds from 0 to",
                id=f"deadline {deadline!r:.9}",
            )
            for deadline in (-0.1, float("nan"), float("inf"), 1e300, 10**400, "1", True)
        ),
        *(
            pytest.param(
                lambda s, most=most, name=name, first=first: getattr(s, name)(*first, most=most),
                f"most is {most!r}; give a whole number of at least 1",
                id=f"{name} {most!r}",
            )
            for name, first in (
                *(("items", [()]), ("candidates", [QUERY]), ("retrieve", [QUERY])),
                ("examples", []),
            )
            for most in (-1, 0, 2.5, True, "3", None)
        ),
        pytest.param(lambda s: s.items("12"), "sid_prefix is '12'; give", id="prefix a text"),
        pytest.param(lambda s: s.children(3), "sid_prefix is 3; give", id="prefix a number"),
        pytest.param(
            lambda s: s.children((1.0,)), "sid_prefix has 1.0; every code", id="code a fraction"
        ),
        pytest.param(lambda s: s.items([True]), "sid_prefix has True", id="code a truth"),
        pytest.param(
            lambda s: s.items(np.zeros((1, 2), int)), "sid_prefix has array", id="prefix a table"
        ),
        pytest.param(lambda s: s.warm(1, 0), "a batch size to warm up is 0", id="empty batch"),
    ],
)
def test_an_argument_of_another_kind_is_refused_by_its_name(scorer, call, message):
    before = scorer.statistics()
    with pytest.raises(InputError, match=message):
        call(scorer)
    assert scorer.statistics() == before


def test_any_sequence_of_texts_or_codes_is_taken(scorer):
    ids = ["item 4", "item 4", "item 7"]
    expected = scorer.score(QUERY, ids).probabilities
    for given in (tuple(ids), np.array(ids), iter(ids), dict(enumerate(ids)).values()):
        np.testing.assert_array_equal(scorer.score(QUERY, given).probabilities, expected)
    (item,) = scorer.described(["item 7"])
    for prefix in (item.sid, list(item.sid), np.array(item.sid), np.array(item.sid, np.uint16)):
        assert item in scorer.items(prefix, most=np.int64(50))


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(InputError) as error:
        arguments.id_list("x" * 10_000)
    assert len(str(error.value)) < 150


@pytest.mark.parametrize(
    ("name", "value", "bounds"),
    [
        ("batch", 0, "of at least 1"),
        ("batch", 2.0, "of at least 1"),
        ("waiting", 0, "of at least 1"),
        ("deadline", float("nan"), "seconds from 0 to"),
        ("deadline", -1.0, "seconds from 0 to"),
        ("deadline", threading.TIMEOUT_MAX * 2, "seconds from 0 to"),
        ("warm", 8, "a tuple of batch sizes"),
        pytest.param("warm", (4, 0), "of at least 1", id="warm with zero"),
        ("most_items", 1025, "from 1 to 1,024"),
        ("most_items", 0, "from 1 to 1,024"),
        ("most_characters", 0, "of at least 1"),
        ("warm_items", 1025, "from 0 to 1,024"),
        ("remembered", -1, "of at least 0"),
        ("remembered", None, "of at least 0"),
        ("remembered_items", -1, "of at least 0"),
        ("remembered_answers", True, "of at least 0"),
        ("programs", "", "path of a folder"),
        ("programs", 3, "path of a folder"),
    ],
)
def test_a_setting_that_no_scorer_can_have_is_refused_by_its_name(name, value, bounds):
    with pytest.raises(InputError, match=rf"ScorerSettings\.{name} is .*{bounds}"):
        ScorerSettings(**{name: value})


def test_as_many_items_as_settings_allow_are_scored(made):
    settings = ScorerSettings(most_items=1024, warm=(), deadline=600.0)
    with Scorer.open(made, settings=settings) as scorer:
        found = scorer.score("never seen", [f"item {number % 60}" for number in range(1024)])
    assert np.isfinite(found.probabilities).all() and found.source == "live"
