from __future__ import annotations

import dataclasses
import sqlite3
import uuid

import duckdb
import pytest

from dsirm_jax.ingestion.joins.connections import connect, only_read
from dsirm_jax.ingestion.readers.database import Database
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import items_of, judgements_of

ROWS = [(1, "red shoe", 1.5), (2, "blue shoe", None), (3, "", 3.0)]
EVENTS = [("red", 1, "click"), ("red", 1, "view"), ("red", 2, "view"), ("blue", 2, "click")]
COUNTED = """
SELECT query, sku, count(*) AS impressions, sum(CASE kind WHEN 'click' THEN 1 ELSE 0 END) AS clicks
FROM events GROUP BY query, sku ORDER BY query DESC, sku;
"""
COLUMNS = {
    "item_columns": {"item_id": "sku", "title": "name"},
    "judgement_columns": {"item_id": "sku"},
    "extra_columns": {"price": "float64"},
}


@pytest.fixture(params=["duckdb", "sqlite"])
def url(request, tmp_path):
    path = tmp_path / f"shop.{request.param}"
    database = {"duckdb": duckdb, "sqlite": sqlite3}[request.param].connect(str(path))
    database.execute("CREATE TABLE items (sku BIGINT, name VARCHAR(99), price DOUBLE, other INT)")
    database.executemany("INSERT INTO items VALUES (?, ?, ?, 0)", ROWS)
    database.execute("CREATE TABLE events (query VARCHAR(99), sku BIGINT, kind VARCHAR(9))")
    database.executemany("INSERT INTO events VALUES (?, ?, ?)", EVENTS)
    database.commit()
    database.close()
    return f"{request.param}://{path}"


def test_tables_and_statements_are_read(url):
    reader = Database(url=url, items="items", judgements=COUNTED, **COLUMNS)
    source = reader.read()
    items, rejected = items_of(source)
    assert [(row["item_id"], row["title"], row["price"]) for row in items] == [
        ("1", "red shoe", 1.5),
        ("2", "blue shoe", None),
    ]
    assert [(row["file"], row["row"], row["item_id"], row["column"]) for row in rejected] == [
        (f"{url} table items", 3, "3", "name")
    ]
    judgements, rejected = judgements_of(source, ())
    counts = ("query", "item_id", "impressions", "clicks")
    assert [tuple(row[name] for name in counts) for row in judgements] == [
        ("red", "1", 2, 1),
        ("red", "2", 1, 0),
        ("blue", "2", 1, 1),
    ]
    assert {row["_file"] for row in judgements} == {f"{url} SELECT of Database.judgements"}
    assert rejected == []
    assert reader.files() == []


def test_unusable_bindings_are_named(url):
    good = {"url": url, "items": "items", "judgements": COUNTED, **COLUMNS}
    for bindings, message in [
        ({"items": "article"}, "^Database.items .*article"),
        ({"judgements": "SELECT FROM events"}, "^Database.judgements "),
        ({"item_columns": {"item_id": "id", "title": "name"}}, "column 'id' .* it has: sku, name"),
        ({"item_columns": {"titel": "name"}}, "Database.item_columns maps 'titel'"),
        ({"judgements": "SELECT query, sku FROM events"}, "no column for label"),
        ({"extra_columns": {"price": "money"}}, r"Database.extra_columns\['price'\]"),
    ]:
        with pytest.raises(InputError, match=message) as error:
            Database(**(good | bindings)).read()
        assert "\n" not in str(error.value)


HOSTILE = {
    "second": "items; DROP TABLE items",
    "after a select": "SELECT sku, name FROM items; DELETE FROM items",
    "behind a comment": "SELECT sku, name FROM items -- ;\n; DELETE FROM items",
    "delete": "DELETE FROM items RETURNING *",
    "insert": "INSERT INTO items VALUES (9, 'evil', 1, 1) RETURNING *",
    "in a cte": "WITH a AS (DELETE FROM items RETURNING *) SELECT * FROM a",
    "copy": "COPY items TO 'copied.csv'",
    "attach": "ATTACH 'copied.db' AS copied",
    "pragma": "PRAGMA user_version = 5",
    "create": "CREATE TABLE copied AS SELECT * FROM items",
    "vacuum": "VACUUM INTO 'copied.db'",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_is_written_to_a_database_or_beside_it(url, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (before,) = ((path, path.read_bytes()) for path in tmp_path.iterdir())
    good = {"url": url, "items": "items", "judgements": COUNTED, **COLUMNS}
    for name in ("items", "judgements"):
        with pytest.raises(InputError, match=rf"^Database\.{name} .*bind a table's name or one"):
            Database(**(good | {name: text})).read()
    assert [(path, path.read_bytes()) for path in tmp_path.iterdir()] == [before]


def test_reading_leaves_the_file_as_it_is(url, tmp_path):
    (before,) = ((path, path.read_bytes()) for path in tmp_path.iterdir())
    source = Database(url=url, items="items", judgements=COUNTED, **COLUMNS).read()
    assert items_of(source)[0] and judgements_of(source, ())[0]
    assert [(path, path.read_bytes()) for path in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize("engine", ["duckdb", "sqlite"])
def test_the_session_itself_only_reads(engine, tmp_path):
    path = tmp_path / "shop.db"
    {"duckdb": duckdb, "sqlite": sqlite3}[engine].connect(str(path)).close()
    if engine == "sqlite":
        path.touch()
    options = {"read_only": True} if engine == "duckdb" else {}
    with connect(f"{engine}://{path}", binding="Database.url", **options) as database:
        only_read(database)
        with pytest.raises(Exception, match=r"read-?only"):
            database.raw_sql("CREATE TABLE a (b INT)")


def test_a_statement_takes_values_from_the_environment_and_is_checked_with_them(monkeypatch):
    monkeypatch.setenv("WORD", "hunter2")
    settings = {"url": "duckdb://", "judgements": "SELECT 'q' AS query, '1' AS item_id, 1 AS label"}
    source = Database(items="SELECT '1' AS item_id, '${WORD}' AS title", **settings).read()
    assert [row["title"] for row in items_of(source)[0]] == ["hunter2"]
    with pytest.raises(InputError, match=r"^Database\.items ") as error:
        Database(items="SELECT '1' AS item_id, ${WORD} AS title", **settings).read()
    assert "hunter2" not in str(error.value)
    monkeypatch.setenv("WORD", "a; DROP TABLE b")
    with pytest.raises(InputError, match="one SELECT"):
        Database(items="SELECT '1' AS item_id, ${WORD}", **settings).read()


def test_a_duckdb_with_every_kind_of_id(tmp_path):
    path = tmp_path / "my.duckdb"
    ids = [uuid.UUID(int=number) for number in range(3)]
    with duckdb.connect(str(path)) as database:
        database.execute("CREATE SCHEMA shop")
        database.execute(
            "CREATE TABLE shop.a (id UUID, n DECIMAL(20, 0), path VARCHAR[], s VARCHAR)"
        )
        for number, id_ in enumerate(ids):
            row = [id_, number, ["Shoes", "Men"], "Shoes/Men"]
            database.execute("INSERT INTO shop.a VALUES (?, ?, ?, ?)", row)
    for column, expected in [("id", list(map(str, ids))), ("n", ["0", "1", "2"])]:
        for category in ("path", "s"):
            columns = {"item_id": column, "title": column, "category": category}
            source = Database(
                url=f"duckdb://{path}",
                items="shop.a",
                judgements="WITH a AS (FROM shop.a) SELECT 'q' AS query, id, 1 AS label FROM a",
                item_columns=columns,
                judgement_columns={"item_id": "id"},
                category_separator="/",
            ).read()
            items, _ = items_of(source)
            assert sorted(row["item_id"] for row in items) == expected
            assert [row["category"] for row in items] == [["Shoes", "Men"]] * 3
            judgements, _ = judgements_of(source, "1")
            assert sorted(row["item_id"] for row in judgements) == list(map(str, ids))


def test_the_embedded_duckdb_reads_what_a_statement_names(tmp_path):
    (tmp_path / "log.csv").write_text("query,item_id,label\nq,1,1\n")
    judgements = f"SELECT * FROM '{tmp_path}/log.csv'"
    items = "SELECT '1' AS item_id, 'one' AS title"
    source = Database(url="duckdb://", items=items, judgements=judgements).read()
    assert [row["title"] for row in items_of(source)[0]] == ["one"]
    assert [row["query"] for row in judgements_of(source, "1")[0]] == ["q"]


@pytest.mark.parametrize("engine", ["duckdb", "sqlite"])
def test_a_missing_database_is_not_made(engine, tmp_path):
    path = tmp_path / f"none.{engine}"
    with pytest.raises(InputError, match=f"^Database.url .*none.{engine}"):
        Database(url=f"{engine}://{path}", items="a", judgements="b").read()
    assert not path.exists()


@pytest.mark.parametrize(
    "url",
    [
        "duckdb:///nowhere/${SECRET}",
        "no-such-engine://user:${SECRET}@host/shop",
        "no-such-engine://user@host/shop?token=${SECRET}",
        "duckdb:///nowhere/a.duckdb?access_mode=hunter2",
    ],
)
def test_messages_keep_secrets(monkeypatch, url):
    monkeypatch.setenv("SECRET", "hunter2")
    with pytest.raises(InputError, match="^Database.url") as error:
        Database(url=url, items="a", judgements="b").read()
    assert "hunter2" not in str(error.value)
    assert error.value.__suppress_context__


def test_passwords_come_from_the_environment():
    for url, message in [
        ("postgres://user:hunter2@host/shop", "holds a password"),
        ("no-such-engine://user@host/shop?token=hunter2", "holds a password, token"),
        ("postgres://user:$SECRET@host/shop", r"write \$\{NAME\} in its place"),
        ("postgres://user:${NO_SUCH_SECRET}@host/shop", "variable NO_SUCH_SECRET is not set"),
    ]:
        with pytest.raises(InputError, match=message) as error:
            Database(url=url, items="a", judgements="b").read()
        assert "hunter2" not in str(error.value)


def test_columns_and_categories_are_told(tmp_path):
    file = tmp_path / "shop.ddb"
    with duckdb.connect(str(file)) as database:
        database.sql("CREATE TABLE items (item_id TEXT, title TEXT, color TEXT, category TEXT)")
        database.sql("INSERT INTO items VALUES ('a', 'A', 'red', 'Home|pot'), ('b', 'B', '', NULL)")
        database.sql("CREATE TABLE judged (query TEXT, docid TEXT, label TEXT)")
        database.sql("INSERT INTO judged VALUES ('q', 'a', '1')")
    reader = Database(
        url=f"duckdb://{file}",
        items="items",
        judgements="judged",
        judgement_columns={"item_id": "docid"},
    )
    source = reader.read()
    assert [(finding.table, finding.is_fault) for finding in source.findings] == [
        ("items", False),
        ("items", True),
        ("judgements", False),
        ("items", False),
    ]
    assert "{'colour': 'color'}" in source.findings[1].text
    assert "1 of 1 have '|'" in source.findings[3].text
    items, _ = items_of(source)
    assert [row["category"] for row in items] == [["Home", "pot"], None]
    with pytest.raises(InputError, match=r"perhaps --gin\.JUDGEMENT_COLUMNS=.*'item_id': 'docid'"):
        dataclasses.replace(reader, judgement_columns={}).read()
