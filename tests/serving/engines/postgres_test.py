"""The files for PostgreSQL, in a real one with pgvector."""

import itertools
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.serving import engines
from dsirm_jax.serving.engines.documents import write_documents
from dsirm_jax.serving.engines.engine import Document, Index
from tests.serving.engines.postgres_server import load, started
from tests.serving.engines.shop import ITEMS, QUERIES, TITLE, VERSION, write_run

POSTGRES, READERS = engines.named("postgres"), 16
HOSTILE = [
    *("\\N", "\\.", "\\", "a\tb\nc\rd\\n", "'; DROP TABLE items; --", '"', "$1", "%s", "{a,b}"),
    *("\x01\x7f\x85", "\u2028👟", "NULL"),
]


@pytest.mark.parametrize("place", ["item_id", "title", "query"])
def test_what_no_text_can_hold_is_said_before_anything_is_loaded(place):
    index = Index(name="items", sid_version=VERSION, dim=None)
    of = {"item_id": "item 1", "title": "mug", "query": "mug"} | {place: "a\0b"}
    with pytest.raises(InputError, match=r"^row '.*' of items or queries has the character NUL"):
        if place == "query":
            POSTGRES.query(of["query"], {"1": 0.5}, index=index)
        fields = {"title": of["title"]}
        document = Document(item_id=of["item_id"], prefixes=("1",), fields=fields, vector=None)
        POSTGRES.document(document, index=index)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    with started(tmp_path_factory.mktemp("postgres") / "data") as uri:
        yield uri


@pytest.fixture
def connect(uri):
    """Opens connections to a database without tables."""
    import psycopg

    def connected():
        return psycopg.connect(uri, cursor_factory=psycopg.RawCursor, autocommit=True)

    with connected() as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return connected


@pytest.fixture
def database(tmp_path, uri, connect, layout, vectors):
    """A database that has loaded what was written."""
    folder = tmp_path / "it's out"
    written = {"engine": POSTGRES, "name": "items", "vectors": vectors}
    write_documents(layout, folder, **written, documents_a_file=10)
    for status in (0, 3):  # the tables are there the second time
        done = load(folder, uri)
        assert done.returncode == status, done.stderr
    assert 'relation "items" already exists' in done.stderr
    with connect() as connection:
        yield connection, folder


@pytest.mark.slow
def test_statements_find_the_items_below_the_beams(database, sids, beams, vectors):
    connection, folder = database
    assert connection.execute("SELECT count(*) FROM items").fetchone() == (ITEMS,)
    title = connection.execute("SELECT title FROM items WHERE item_id = 'item 3'").fetchone()
    assert title == (TITLE,)
    known, by_prefix, by_vector, by_both = (
        (folder / f"{name}.sql").read_text()
        for name in ("known_query", "by_prefix", "by_vector", "by_both")
    )
    vector = str(vectors[4].tolist())
    nearest = connection.execute(by_vector, (vector, VERSION, 5)).fetchall()
    order = np.argsort(-(vectors @ vectors[4]))[:5]
    assert [item for item, _ in nearest] == [f"item {number}" for number in order]
    np.testing.assert_allclose([score for _, score in nearest], (vectors @ vectors[4])[order], 1e-6)
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
        both = dict(found[:5])
        for item, score in nearest:
            both[item] = both.get(item, 0.0) + score
        expected = sorted(both.items(), key=lambda row: (-row[1], row[0]))[:5]
        assert connection.execute(by_both, (*terms, VERSION, 5, vector)).fetchall() == expected


@pytest.mark.slow
def test_texts_are_cells_and_parameters_whatever_they_say(database, layout):
    import psycopg

    connection, folder = database
    index, terms = Index(name="items", sid_version=VERSION, dim=None), {"1": 0.25}
    lines = [
        POSTGRES.document(
            Document(item_id=text, prefixes=("9",), fields={"title": text}, vector=None),
            index=index,
        )
        for text in HOSTILE
    ]
    connection.execute("ALTER TABLE items DROP COLUMN vector")
    queries = [POSTGRES.query(text, terms, index=index) for text in HOSTILE]
    for table, rows in (("items", lines), ("items_queries", queries)):
        with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            copy.write("".join(f"{row}\n" for row in rows))
    titles = connection.execute("SELECT title FROM items WHERE sid = '9.' AND title = item_id")
    assert sorted(title for (title,) in titles.fetchall()) == sorted(HOSTILE)
    known = (folder / "known_query.sql").read_text()
    for text in HOSTILE:
        found = connection.execute(known, (text, ITEMS)).fetchall()
        assert found and {score for _, score in found} == {0.25}
    assert connection.execute(known, ("x'; DROP TABLE items --", ITEMS)).fetchall() == []
    # The driver says so itself, and the connection stays as it was.
    with pytest.raises(psycopg.DataError, match="cannot contain NUL"):
        connection.execute(known, ("red\0mug", ITEMS))
    assert connection.execute(known, (QUERIES[0], ITEMS)).fetchall()


@pytest.mark.slow
def test_sixteen_readers_see_all_of_a_change_or_none_of_it(
    tmp_path, uri, connect, layout, sids, beams
):
    random, written = np.random.default_rng(3), {"engine": POSTGRES, "name": "items"}
    more = write_run(
        tmp_path / "more",
        sids=np.concatenate([sids, random.integers(0, 4, (200, 3))]),
        beams=[beams[1], beams[0], beams[2]],
    )
    other = write_run(
        tmp_path / "other", sids=random.integers(0, 4, (90, 3)), beams=beams, version="b" * 16
    )
    write_documents(layout, tmp_path / "first", **written)
    write_documents(more, tmp_path / "second", **written, documents_a_file=50)
    write_documents(other, tmp_path / "wrong", **written)
    write_documents(other, tmp_path / "third", engine=POSTGRES, name="items_2")
    page = Path("docs/engines.md").read_text("utf-8")
    (rename,) = re.findall(r'^```sql title="rename"\n(.*?)^```$', page, re.M | re.S)
    assert load(tmp_path / "first", uri).returncode == 0
    asked = {
        name: (tmp_path / f"first/{name}.sql").read_text() for name in ("known_query", "by_prefix")
    }
    with connect() as connection:
        terms = connection.execute(
            "SELECT prefixes, weights FROM items_queries WHERE query = $1", QUERIES[:1]
        ).fetchone()
    parameters = {"known_query": (QUERIES[0], 500), "by_prefix": (*terms, VERSION, 500)}
    step, counts = threading.Event(), [0] * READERS

    def read(reader):
        """Returns the different answers of a reader, in their order."""
        name, found = (*asked,)[reader % 2], []
        with connect() as connection:
            while not step.is_set():
                answer = connection.execute(
                    asked[name], parameters[name], prepare=reader % 4 < 2
                ).fetchall()
                counts[reader] += 1
                if answer not in found[-1:]:
                    found.append(answer)
        return found

    def everybody_has_read():
        for reader, before in enumerate([*counts]):
            while counts[reader] < before + 2 and not readers[reader].done():
                step.wait(0.001)

    expected = {name: [] for name in asked}
    with ThreadPoolExecutor(READERS) as threads, connect() as connection:

        def expect():
            for name, statement in asked.items():
                expected[name].append(connection.execute(statement, parameters[name]).fetchall())
            everybody_has_read()

        readers = [threads.submit(read, reader) for reader in range(READERS)]
        try:
            expect()
            done = load(tmp_path / "wrong", uri, "--update")
            assert done.returncode == 3 and "SIDs of different versions" in done.stderr
            assert load(tmp_path / "second", uri, "--update").returncode == 0
            expect()
            assert load(tmp_path / "third", uri).returncode == 0
            renamed(connection, rename)
            expect()
        finally:
            step.set()
        rows = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("items", "items_queries", "items_1", "items_1_queries")
        ]
    assert rows == [90, 2, 225, 2]
    assert expected["by_prefix"][2] == []  # asks for SIDs of the version that is gone
    assert all(a != b for of in expected.values() for a, b in itertools.pairwise(of))
    for reader, seen in enumerate(readers):
        states = expected[(*asked,)[reader % 2]]
        seen_states = [states.index(one) if one in states else "a mixture" for one in seen.result()]
        assert seen_states == [0, 1, 2]


def renamed(connection, statements):
    """Runs statements, again where readers hold what they wait for."""
    import psycopg

    for _ in range(100):
        try:
            connection.execute(statements)
        except psycopg.errors.LockNotAvailable:
            connection.execute("ROLLBACK")
        else:
            return
    pytest.fail("the readers never let go")


@pytest.mark.slow
def test_a_prefix_is_a_range_of_the_index(database):
    connection, _ = database
    connection.execute("SET enable_seqscan = off")
    asked = "SELECT item_id FROM items WHERE sid >= '1.2.' COLLATE \"C\" AND sid < '1.2/'"
    plan = " ".join(line for (line,) in connection.execute(f"EXPLAIN {asked}").fetchall())
    assert "Index Cond: ((sid >= '1.2.'::text COLLATE \"C\") AND (sid < '1.2/'::text))" in plan
