from __future__ import annotations

import collections
import dataclasses
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dsirm_jax.generator.predict import predict_sids
from dsirm_jax.generator.score import score_pairs
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.compute import pair_features, rung_features
from dsirm_jax.relevance.digests import Reading, digest_items, digest_queries
from dsirm_jax.relevance.features.group import PairContext, PairTexts
from dsirm_jax.relevance.features.numeric import finite_numbers
from dsirm_jax.relevance.groups import reading
from dsirm_jax.relevance.nearest.exact import nearest_rows
from dsirm_jax.relevance.neighbours import NEAR_ITEMS, NEAR_QUERIES, Surroundings
from dsirm_jax.relevance.schema import join
from dsirm_jax.relevance.score import score
from dsirm_jax.relevance.terms import ItemTexts
from dsirm_jax.serving import Scorer, ScorerSettings
from dsirm_jax.serving.bundle.cached import NO_KEY
from dsirm_jax.serving.bundle.catalogue import BundleCatalogue
from dsirm_jax.serving.bundle.manifest import DENSE_ONLY, FULL
from dsirm_jax.serving.scorer.answers import CACHED, FALLBACK, LIVE
from dsirm_jax.serving.scorer.batching import Overloaded
from dsirm_jax.sids.codes import pack
from tests.serving import tiny

LIVE_QUERIES = ["green phone case without stand", "ruž mug 64 oz", "Acme"]
IDS = [f"item {number}" for number in range(60)]


@pytest.fixture(scope="module")
def expected(bundle):
    """Features and probabilities of all items for some queries, as training computes them."""
    catalogue, models = bundle.catalogue, bundle.models
    queries = [*tiny.QUERIES[:2], *LIVE_QUERIES]
    vectors = np.concatenate(
        [catalogue.cached(query).vectors for query in queries[:2]]
        + [_vector(models, query)[None] for query in queries[2:]]
    )
    query_index, item_index = (index.ravel() for index in np.mgrid[: len(queries), :60])
    voters = catalogue.voters
    near = Surroundings(
        items=nearest_rows(queries=vectors, candidates=catalogue.vectors, k=NEAR_ITEMS),
        queries=nearest_rows(
            queries=vectors,
            candidates=voters.vectors,
            k=NEAR_QUERIES,
            own=np.array([0, 1, -1, -1, -1]),
        ),
        judged=voters.judged,
    )
    rows = tiny.with_text(tiny.items(0, 60))
    columns = ("text", "title", "brand", "colour")
    texts = Reading(models.vocabulary, catalogue.statistics.names, "en")
    items = digest_items(ItemTexts(*([row[name] for row in rows] for name in columns)), texts)
    price = np.array([np.nan if row["price"] is None else row["price"] for row in rows])
    pairs = {"query_index": query_index, "item_index": item_index}
    context = PairContext(
        **pairs,
        item_row=item_index,
        query_vectors=vectors,
        item_vectors=catalogue.vectors,
        surroundings=near,
        texts=PairTexts(digest_queries(queries, texts), items, catalogue.statistics.pieces),
        numbers={"price": finite_numbers(price)},
    )
    dense = pair_features(context, groups=reading("pairs"))
    pieces = models.vocabulary.encode(queries, out_type=int)
    sids = np.asarray(catalogue.sids, np.int32)
    beams = predict_sids(
        fitted=models.generator, trie=catalogue.trie, pieces=pieces, beams=tiny.BEAMS, batch_size=8
    )
    of_sids = rung_features(
        **pairs,
        groups=reading("beams", "neighbour_sids"),
        sids=sids,
        log_shares=catalogue.log_shares,
        beams=beams,
        pair_log_probs=score_pairs(
            fitted=models.generator,
            pieces=pieces,
            query_index=query_index,
            sids=sids[item_index],
            batch_size=8,
        ),
        surroundings=near,
    )
    table = join([dense, of_sids])
    chances = {name: score(models.heads[name], table) for name in (FULL, DENSE_ONLY)}
    return {
        query: SimpleNamespace(
            beams=[part[row] for part in beams],
            names=table.names,
            features=table.values[query_index == row],
            **{name: of[query_index == row] for name, of in chances.items()},
        )
        for row, query in enumerate(queries)
    }


def foreseen(bundle, query):
    """Returns the items whose SIDs the bundle knows the probabilities of, for a cached query."""
    keys = bundle.catalogue.cached(query).known.keys[0]
    return np.flatnonzero(np.isin(pack(np.asarray(bundle.catalogue.sids), sizes=tiny.SIZES), keys))


def _vector(models, query):
    pieces = np.zeros((1, 8), np.int32)
    found = models.vocabulary.encode(query, out_type=int)[:8]
    pieces[0, : len(found)] = found
    return np.asarray(models.encoder.module.apply(models.encoder.params, pieces))[0]


@pytest.mark.parametrize(
    "spell", [str.upper, str.title, "  {}".format], ids=["upper", "title", "space"]
)
@pytest.mark.parametrize("query", [tiny.QUERIES[1], LIVE_QUERIES[0]], ids=["cached", "live"])
def test_all_spellings_of_a_query_have_one_answer(scorer, query, spell):
    one, other = scorer.score(query, IDS[:9]), scorer.score(spell(query), IDS[:9])
    assert other.source == one.source
    np.testing.assert_array_equal(other.features, one.features)
    np.testing.assert_array_equal(other.probabilities, one.probabilities)
    predicted = scorer.query_sids(spell(query))
    np.testing.assert_array_equal(predicted.sids, scorer.query_sids(query).sids)
    assert scorer.candidates(spell(query)) == scorer.candidates(query)


@pytest.mark.parametrize(
    "query",
    [*tiny.QUERIES[:2], *LIVE_QUERIES],
    ids=["cached", "another cached", "negation", "accent and amount", "brand"],
)
def test_pairs_have_the_numbers_that_training_computes(scorer, bundle, expected, query):
    numbers = np.arange(60) if query in LIVE_QUERIES else foreseen(bundle, query)
    assert len(numbers) >= 40
    order = np.random.default_rng(0).permutation(numbers)
    found = scorer.score(f"  <b>{query}</b> ", [IDS[number] for number in order])
    assert found.source == (LIVE if query in LIVE_QUERIES else CACHED)
    names = [feature.name for feature in scorer.schema]
    columns = [expected[query].names.index(name) for name in names]
    wanted = expected[query].features[order][:, columns]
    np.testing.assert_allclose(found.features, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, expected[query].full[order], atol=1e-5)
    np.testing.assert_allclose(found.dense_only, expected[query].dense_only[order], atol=1e-5)
    assert found.probabilities.std() > 1e-3


@pytest.mark.parametrize("query", [tiny.QUERIES[0], LIVE_QUERIES[0]])
def test_sids_of_a_query(scorer, expected, query):
    found = scorer.query_sids(query)
    assert found.source == (LIVE if query in LIVE_QUERIES else CACHED)
    sids, log_probs, _ = expected[query].beams
    np.testing.assert_array_equal(found.sids, sids)
    np.testing.assert_allclose(found.probabilities, np.exp(log_probs), atol=1e-5)


def test_ids_may_repeat_and_unknown_ones_are_named(scorer, bundle, expected):
    query = tiny.QUERIES[0]
    one, other = foreseen(bundle, query)[[3, 0]]
    found = scorer.score(query, [IDS[one], "nothing", IDS[other], IDS[one], ""])
    assert found.unknown == ("nothing", "")
    wanted = expected[query].full[[one, 0, other, one, 0]]
    wanted[[1, 4]] = np.nan
    np.testing.assert_allclose(found.probabilities, wanted, atol=1e-5)
    assert np.isnan(found.features[1]).all() and np.isfinite(found.features[0]).all()
    none = scorer.score(query, [])
    assert none.probabilities.shape == (0,) and none.unknown == ()


def test_an_answer_that_is_remembered_is_of_these_items_whoever_wrote_into_an_earlier_one(
    bundle, expected
):
    query = tiny.QUERIES[0]
    some, others = np.split(foreseen(bundle, query)[:20], 2)
    with Scorer(bundle, settings=ScorerSettings(deadline=600.0, remembered_answers=1)) as scorer:
        for numbers in (some, some[::-1], others, some, np.append(some, others)):
            found = scorer.score(query, [IDS[number] for number in numbers])
            np.testing.assert_allclose(
                found.probabilities, expected[query].full[numbers], atol=1e-5
            )
            for values in (found.probabilities, found.dense_only, found.features):
                values[:] = 7.0
        other = scorer.score(tiny.QUERIES[1], [IDS[number] for number in some])
    wanted = expected[tiny.QUERIES[1]].full[some]
    np.testing.assert_allclose(other.probabilities, wanted, atol=1e-5)
    assert scorer.statistics()[CACHED] >= 5


class FewKnown(BundleCatalogue):
    """A catalogue that knows the log-probabilities of three SIDs of a query alone."""

    def cached(self, query):
        cached = super().cached(query)
        keys = cached.known.keys.copy()
        keys[0, 3:] = NO_KEY
        return cached._replace(known=cached.known._replace(keys=keys))


def test_a_cached_query_asks_the_generator_about_sids_that_were_not_foreseen(bundle, expected):
    query, catalogue = tiny.QUERIES[1], FewKnown(**vars(bundle.catalogue))
    few = SimpleNamespace(manifest=bundle.manifest, catalogue=catalogue, models=bundle.models)
    with Scorer(few, settings=ScorerSettings(deadline=600.0)) as scorer:
        found = scorer.score(query, IDS)
    assert found.source == LIVE
    np.testing.assert_allclose(found.probabilities, expected[query].full, atol=1e-5)


def test_when_the_generator_is_late_the_head_without_sids_answers(held, bundle, expected):
    scorer, gate = held
    near = [IDS[number] for number in foreseen(bundle, tiny.QUERIES[0])]
    query = LIVE_QUERIES[1]
    found = scorer.score(query, IDS, deadline=0.0)
    assert found.source == FALLBACK
    np.testing.assert_allclose(found.probabilities, expected[query].dense_only, atol=1e-5)
    np.testing.assert_array_equal(found.probabilities, found.dense_only)
    known = ~np.isnan(found.features).any(axis=0)
    of_sids = {
        feature.name for feature in scorer.schema if feature.group in ("prefix", "neighbours")
    }
    assert not known[[feature.name in of_sids for feature in scorer.schema]].any()
    sids = scorer.query_sids(query, deadline=0.0)
    assert sids.source == FALLBACK and sids.sids.shape == (0, 3)
    assert scorer.score(tiny.QUERIES[0], near, deadline=0.0).source == CACHED
    assert scorer.statistics()[FALLBACK] == 2
    gate.go.set()
    assert scorer.score(query, IDS).source == LIVE


def test_more_queries_than_may_wait_are_refused_at_once(held):
    scorer, gate = held
    first = threading.Thread(target=scorer.query_sids, args=("one",))
    first.start()
    gate.reached.acquire()  # the first is at work, so the next ones wait
    others = [threading.Thread(target=scorer.query_sids, args=(text,)) for text in ("two", "three")]
    for other in others:
        other.start()
    while scorer.statistics()["waiting"] < 2:
        pass
    for call in (lambda: scorer.query_sids("four"), lambda: scorer.score("four", IDS)):
        with pytest.raises(Overloaded):
            call()
    gate.go.set()
    for thread in (first, *others):
        thread.join(timeout=3600)
    counts = scorer.statistics()
    assert (counts[LIVE], counts["overloaded"], counts["waiting"]) == (3, 2, 0)
    assert (counts["batches"], counts["batched"]) == (3, 3)


def test_items_and_branches_below_a_prefix(scorer, bundle):
    sids = np.asarray(bundle.catalogue.sids)
    rows = tiny.items(0, 60)
    branches = scorer.children(())
    assert [branch.code for branch in branches] == sorted(set(sids[:, 0].tolist()))
    for branch in branches:
        below = np.flatnonzero(sids[:, 0] == branch.code)
        assert branch.items == len(below)
        known = [rows[number]["category"][1] for number in below if rows[number]["category"]]
        counts = collections.Counter(known)
        assert branch.purity == (max(counts.values()) / len(known) if known else None)
        assert not known or counts[branch.category] == max(counts.values())
        assert set(branch.titles) <= {rows[number]["title"] for number in below}
        deeper = scorer.children((branch.code,))
        assert sum(child.items for child in deeper) == branch.items
    item = scorer.items(sids[7].tolist())[0]
    assert item.sid == tuple(sids[7].tolist())
    assert scorer.children(item.sid) == []
    whole = {item.item_id: item for item in scorer.items((), most=100)}
    assert set(whole) == set(IDS) and len(scorer.items((), most=9)) == 9
    assert whole["item 7"].attributes == {
        "brand": "Acme",
        "colour": "green",
        "category": "home > mug",
        "material": "wood",
    }


def test_items_are_described_in_the_order_asked(scorer):
    titles = {row["item_id"]: row["title"] for row in tiny.items(0, 60)}
    found = scorer.described(["item 41", "nothing", "item 3", "item 41"])
    assert [item.item_id for item in found] == ["item 41", "item 3", "item 41"]
    assert all(item.title == titles[item.item_id] for item in found)


def test_examples_are_cached_queries_from_all_over_the_alphabet(scorer):
    assert scorer.examples(most=100) == sorted(tiny.QUERIES)
    three = scorer.examples(most=3)  # the shortest of each four: blue, green and red
    assert three == ["blue mug", "green mug", "red mug"]


def test_there_are_no_examples_where_the_bundles_maker_does_not_allow_it(bundle):
    settings = dataclasses.replace(bundle.manifest.settings, shows_queries=False)
    manifest = dataclasses.replace(bundle.manifest, settings=settings)
    quiet = SimpleNamespace(manifest=manifest, catalogue=bundle.catalogue, models=bundle.models)
    with Scorer(quiet, settings=ScorerSettings()) as scorer:
        assert scorer.examples(most=100) == []
        assert scorer.query_sids(tiny.QUERIES[0]).source == CACHED


@pytest.mark.parametrize("query", [tiny.QUERIES[0], LIVE_QUERIES[0]])
def test_candidates_are_items_of_the_sids_and_then_the_nearest(scorer, query):
    found = scorer.candidates(query, most=20)
    assert len(found) == len(set(found)) == 20
    sids = scorer.query_sids(query).sids
    below = [item.item_id for sid in sids for item in scorer.items(sid.tolist())]
    assert found[: len(below)] == below[:20]
    assert scorer.candidates(query, most=2) == found[:2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda scorer: scorer.score(" <b></b> ", IDS), "query is empty", id="empty query"
        ),
        pytest.param(
            lambda scorer: scorer.query_sids("x" * 1025), "has 1025 characters", id="long query"
        ),
        pytest.param(
            lambda scorer: scorer.score("mug", ["x" * 513]), "of 513 characters", id="long id"
        ),
        pytest.param(
            lambda scorer: scorer.score("mug", IDS * 18),
            "1080 items in one call",
            id="too many items",
        ),
        pytest.param(
            lambda scorer: scorer.items((0, 99)),
            "no item's SID starts with 0-99",
            id="unknown prefix",
        ),
        pytest.param(
            lambda scorer: scorer.items((-1,)), "no item's SID starts with -1", id="negative prefix"
        ),
        pytest.param(
            lambda scorer: scorer.children((0, 0, 0, 0)),
            "no item's SID starts with 0-0-0-0",
            id="prefix too deep",
        ),
    ],
)
def test_bad_input_is_refused(scorer, call, message):
    with pytest.raises(InputError, match=message):
        call(scorer)


def test_a_query_that_nothing_can_make_a_vector_of_is_refused(bundle):
    models = dataclasses.replace(bundle.models, encoder=None)
    blind = SimpleNamespace(manifest=bundle.manifest, catalogue=bundle.catalogue, models=models)
    with Scorer(blind, settings=ScorerSettings()) as scorer:
        near = [IDS[number] for number in foreseen(bundle, tiny.QUERIES[0])]
        assert scorer.score(tiny.QUERIES[0], near).source == CACHED
        with pytest.raises(InputError, match="'Acme' has no vector"):
            scorer.score("Acme", IDS)
        assert scorer.statistics()["batches"] == 0


def test_a_head_that_reads_an_experiments_features_is_refused(bundle):
    settings = dataclasses.replace(bundle.manifest.settings, groups={FULL: ("dense", "prefix@5")})
    manifest = dataclasses.replace(bundle.manifest, settings=settings)
    changed = SimpleNamespace(manifest=manifest, catalogue=bundle.catalogue, models=bundle.models)
    with pytest.raises(InputError, match="'prefix@5', which is not computed when serving"):
        Scorer(changed, settings=ScorerSettings())


def test_what_the_page_about_serving_shows_runs_without_what_trains(made, tmp_path):
    (shown,) = re.findall(
        r"```python\n(.*?)```", Path("docs/serving.md").read_text("utf-8"), re.DOTALL
    )
    for told, here in (
        ("out/demo/export/bundle", made),
        ("/var/cache/dsirm", tmp_path),
        ("deadline=0.02", "deadline=3600.0"),
    ):
        assert told in shown
        shown = shown.replace(told, str(here))
    names = ("gin", "tensorflow", "optax", "orbax")
    shown += f"import sys\nprint([name for name in {names} if name in sys.modules])\n"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    scored, found, imported = done.stdout.splitlines()
    assert scored.startswith("live {'item ")
    assert "Item(item_id='item " in found
    assert imported == "[]"
    assert list(tmp_path.iterdir())  # compiled programs, for the next start
