"""A database is only read: anything but a table's name or one SELECT is refused."""

import pytest

from dsirm_jax.ingestion.joins.statements import select_statement
from dsirm_jax.io.errors import InputError

NAMES = [
    ("duckdb", "items"),
    ("duckdb", "shop.items"),
    ("duckdb", '"my items"'),
    ("duckdb", "'items.csv'"),
    ("postgres", "shop.public.items"),
    ("bigquery", "my-project.shop.items"),
    ("bigquery", "`my-project.shop.items_*`"),
    ("mysql", "`shop`.`items`"),
]
SELECTS = [
    ("duckdb", "SELECT * FROM items"),
    ("duckdb", "select 1 AS item_id"),
    pytest.param("duckdb", "-- all\nSELECT * FROM items -- of them", id="comments"),
    ("duckdb", "/* all */ (SELECT 1) UNION ALL SELECT 2"),
    ("duckdb", "FROM items SELECT item_id"),
    ("duckdb", "WITH a AS (FROM shop.a) SELECT 'q' AS query, id, 1 AS label FROM a"),
    ("duckdb", "SELECT 'a; DROP TABLE items' AS title, \"delete\" FROM items"),
    ("postgres", "SELECT a, count(*) FILTER (WHERE b) FROM items GROUP BY a HAVING max(c) > 1"),
    ("sqlite", "SELECT replace(title, 'a', 'b') AS title FROM items"),
    ("bigquery", "SELECT * EXCEPT(a) FROM `p.d.items_*` WHERE _TABLE_SUFFIX > '2'"),
]
REFUSED = [
    ("duckdb", "items; DROP TABLE items"),
    ("duckdb", "items WHERE true"),
    ("duckdb", "items JOIN more ON true"),
    ("duckdb", "items AS a"),
    ("duckdb", "items, more"),
    ("duckdb", "read_csv('a.csv')"),
    ("duckdb", "items UNION SELECT 1"),
    ("tsql", "items WITH (TABLOCKX)"),
    ("duckdb", ";"),
    ("duckdb", "SELECT 1; SELECT 2"),
    ("duckdb", "SELECT 1;; DELETE FROM items"),
    pytest.param("duckdb", "SELECT 1; -- more\nDROP TABLE items", id="behind a comment"),
    ("duckdb", "INSERT INTO items VALUES (1)"),
    ("duckdb", "UPDATE items SET a = 1"),
    ("duckdb", "DELETE FROM items"),
    ("duckdb", "DELETE FROM items RETURNING *"),
    ("duckdb", "MERGE INTO items USING b ON true WHEN MATCHED THEN DELETE"),
    ("duckdb", "CREATE TABLE a AS SELECT 1"),
    ("duckdb", "DROP TABLE items"),
    ("duckdb", "ALTER TABLE items ADD COLUMN a INT"),
    ("duckdb", "TRUNCATE items"),
    ("duckdb", "COPY items TO 'items.csv'"),
    ("duckdb", "COPY (SELECT 1) TO 'items.csv'"),
    ("duckdb", "ATTACH 'other.ddb'"),
    ("duckdb", "DETACH shop"),
    ("duckdb", "PRAGMA database_list"),
    ("duckdb", "SET memory_limit = '1GB'"),
    ("duckdb", "INSTALL httpfs"),
    ("duckdb", "LOAD httpfs"),
    ("duckdb", "CALL pragma_version()"),
    ("duckdb", "EXPORT DATABASE 'folder'"),
    ("duckdb", "CHECKPOINT; SELECT 1"),
    ("duckdb", "WITH a AS (SELECT 1) INSERT INTO items SELECT * FROM a"),
    ("duckdb", "SELECT nextval('numbers')"),
    ("duckdb", "SELECT * FROM postgres_execute('shop', 'DELETE FROM items')"),
    ("postgres", "WITH a AS (DELETE FROM items RETURNING *) SELECT * FROM a"),
    ("postgres", "WITH a AS (UPDATE items SET b = 1 RETURNING *) SELECT * FROM a"),
    ("postgres", "WITH a AS (INSERT INTO items VALUES (1) RETURNING *) SELECT * FROM a"),
    ("postgres", "SELECT * FROM (WITH a AS (DELETE FROM b RETURNING *) SELECT * FROM a) AS c"),
    ("postgres", "SELECT * INTO copied FROM items"),
    ("postgres", "SELECT * FROM items FOR UPDATE"),
    ("postgres", "SELECT set_config('transaction_read_only', 'off', false)"),
    ("postgres", "SELECT pg_catalog.setval('numbers', 1)"),
    ("postgres", "SELECT * FROM dblink('host=h', 'DELETE FROM items') AS a(b int)"),
    ("postgres", "EXPLAIN ANALYZE DELETE FROM items"),
    ("postgres", "DO $$ BEGIN DELETE FROM items; END $$"),
    ("mysql", "SELECT 1 INTO OUTFILE 'items.csv'"),
    ("mysql", "SELECT 1 /*!50000 INTO OUTFILE 'items.csv' */"),
    ("mysql", "LOCK TABLES items WRITE"),
    ("sqlite", "REPLACE INTO items VALUES (1)"),
    ("sqlite", "VACUUM INTO 'items.db'"),
    ("tsql", "SELECT * INTO copied FROM items"),
]


@pytest.mark.parametrize(("dialect", "name"), NAMES)
def test_all_of_a_table_is_read(dialect, name):
    for text in (name, f" {name} ;\n"):
        statement = select_statement(text, dialect=dialect, binding="Database.items")
        assert statement == f"SELECT * FROM {name}"


@pytest.mark.parametrize(("dialect", "text"), SELECTS)
def test_one_select_is_run_as_it_is(dialect, text):
    for written in (text, f"\n{text}\n;"):
        assert select_statement(written, dialect=dialect, binding="Database.items") == text


@pytest.mark.parametrize(("dialect", "text"), REFUSED)
def test_anything_else_is_refused(dialect, text, caplog):
    with pytest.raises(InputError, match=r"^Database\.items .*; .*bind a table's name") as error:
        select_statement(text, dialect=dialect, binding="Database.items")
    assert "\n" not in str(error.value)
    assert caplog.text == ""
