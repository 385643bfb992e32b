"""What PostgreSQL finds in a finished run's files is what a scorer finds in its bundle.

DSIRM_RUN=out/demo pytest -s -m slow tests/job/postgres_test.py

asks a run of your own, of which `dsirm export` and `dsirm export --to=postgres --vectors` are done.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from dsirm_jax.run.layout import Layout
from dsirm_jax.serving import Scorer, ScorerSettings, open_bundle
from tests.job.tiny import dsirm
from tests.serving.engines.postgres_server import load, started

pytestmark = pytest.mark.slow
MOST, NEAR_ENOUGH = 50, 1e-5
"""NumPy and pgvector add up products of 32 bits in orders of their own."""
UNKNOWN = ["a mug that nobody has asked for", "Red! shoe's \\ 12\"", "ruž 64 oz"]


@pytest.fixture(scope="module")
def exported(request, tmp_path_factory):
    if named := os.environ.get("DSIRM_RUN"):
        return Layout(model_dir=Path(named))
    finished, _ = request.getfixturevalue("run")
    model_dir = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(finished, model_dir)
    dsirm("export", model_dir)
    dsirm("export", model_dir, "--to=postgres", "--vectors")
    return Layout(model_dir=model_dir)


@pytest.fixture(scope="module")
def connection(exported, tmp_path_factory):
    import psycopg

    folder = exported.stage("postgres")
    with started(tmp_path_factory.mktemp("postgres") / "data") as uri:
        done = load(folder, uri)
        assert done.returncode == 0, done.stderr
        with psycopg.connect(uri, cursor_factory=psycopg.RawCursor, autocommit=True) as connection:
            connection.execute(f"SET hnsw.ef_search = {2 * MOST}")
            yield connection


def gap(found, there):
    """Returns how far two lists are apart in their scores, and how many items one alone has.

    Such items have the score of the last one.
    """
    assert len(found) == len(there)
    scores = [np.array([score for _, score in of]) for of in (found, there)]
    apart = np.abs(scores[0] - scores[1]).max(initial=0.0)
    one, other = dict(found), dict(there)
    apart = max([apart, *(abs(one[item] - other[item]) for item in {*one} & {*other})])
    for mine in (one, other):
        alone = [mine[item] for item in {*one} ^ {*other} if item in mine]
        assert max(alone, default=0.0) <= min(mine.values(), default=0.0) + NEAR_ENOUGH
    return apart, len({*one} - {*other})


def test_postgres_finds_what_the_scorer_finds(exported, connection):
    names = ("known_query", "by_prefix", "by_vector", "by_both")
    texts = {name: (exported.stage("postgres") / f"{name}.sql").read_text() for name in names}

    def ask(name, *parameters):
        return connection.execute(texts[name], parameters).fetchall()

    bundle = open_bundle(exported.bundle, trust=True)
    known = [text for text, _ in bundle.catalogue.cached_queries()]
    version = bundle.manifest.sid_version
    apart, alone, recalls, results = [], [], [], 0
    settings = ScorerSettings(deadline=600.0)
    with Scorer.open(exported.bundle, settings=settings, trust=True) as scorer:
        for query in [*known, *UNKNOWN]:
            found = scorer.retrieve(query, most=MOST)
            terms = [f"{prefix}." for prefix in found.terms], [*found.terms.values()]
            vector = str(found.vector.tolist())
            by_sid = ask("by_prefix", *terms, version, MOST)
            assert by_sid == [*found.by_sid], query
            assert query in UNKNOWN or ask("known_query", query, MOST) == by_sid
            approximate = {item for item, _ in ask("by_vector", vector, version, MOST)}
            # Without the index the search is exhaustive.
            connection.execute("SET enable_indexscan = off")
            by_vector = ask("by_vector", vector, version, MOST)
            by_both = ask("by_both", *terms, version, MOST, vector)
            connection.execute("SET enable_indexscan = on")
            for mine, theirs in ((by_vector, found.by_vector), (by_both, found.by_both)):
                difference, items = gap(mine, theirs)
                apart.append(difference)
                alone.append(items)
            recalls.append(len(approximate & {item for item, _ in by_vector}) / len(by_vector))
            results += len(by_sid)
    print(
        f"\n{len(known):,} known queries and {len(UNKNOWN)} others: {results:,} items by SID, "
        f"the same; by vector and by both scores at most {max(apart):.1e} apart, "
        f"{np.mean(alone[::2]):.3f} and {np.mean(alone[1::2]):.3f} items of a list others; "
        f"recall of the index {np.mean(recalls):.4f}, least {min(recalls):.2f}"
    )
    assert max(apart) < NEAR_ENOUGH and np.mean(recalls) > 0.95
