from __future__ import annotations

import itertools

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.ingestion.joins.connections import connect
from dsirm_jax.ingestion.joins.copies import EQUAL, OTHER, found_copies
from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.ingestion.readers.tables import Tables
from dsirm_jax.ingestion.validation.staging import PART
from dsirm_jax.ingestion.validation.validate import checked_items_schema
from dsirm_jax.io.errors import InputError
from tests.ingestion.shop_rows import SETTINGS, Rows, read, shop

EXTRAS = pa.schema([("price", pa.float64())])
COLUMNS = checked_items_schema(EXTRAS).append(pa.field(PART, pa.int32()))
ROWS = [
    # part, row, id, title, category, price
    (0, 1, "a", "A", ["x", "y"], 1.0),
    (0, 2, "b", "B", None, None),
    (0, 3, "a", "A new", ["x", "y"], 1.0),
    (1, 1, "a", "A", ["x", "y"], 1.0),
    (1, 2, "c", "C", ["x"], float("nan")),
    (1, 3, "c", "C", ["x"], float("nan")),
    (2, 1, "b", "B", None, 2.0),
    (2, 2, "d", "D", None, None),
]


def copies(folder, engine, rows, **bound):
    names = (PART, "_row", "item_id", "title", "category", "price")
    table = pa.Table.from_pylist([dict(zip(names, row)) | {"_file": "f"} for row in rows], COLUMNS)
    pq.write_table(table, folder / "rows.parquet")
    with connect(engine, binding="b") as database:
        found = found_copies(
            database,
            database.read_parquet(str(folder / "rows.parquet")),
            extras=EXTRAS.names,
            folder=folder,
            **({"item_copies": None} | bound),
        )
        reasons = {
            (row[PART], row["_row"]): row["reason"] for row in found.rows.to_pyarrow().to_pylist()
        }
    return found, reasons


@pytest.mark.parametrize("engine", ["duckdb://", "datafusion://"])
@pytest.mark.parametrize("order", [1, -1], ids=["in order", "reversed"])
def test_the_last_row_of_the_last_file_is_the_item(tmp_path, engine, order):
    found, reasons = copies(tmp_path, engine, ROWS[::order])
    assert reasons == {(0, 1): EQUAL, (0, 3): OTHER, (1, 2): EQUAL, (0, 2): OTHER}
    assert (found.equal, found.other, found.example) == (2, 2, "a")
    assert found.harmless.isdisjoint({OTHER})
    equal, other = found.findings
    assert equal.text.startswith("2 rows are equal copies") and not equal.is_fault
    assert "'a'" in other.text and "the last of each" in other.text and other.is_fault


@pytest.mark.parametrize("engine", ["duckdb://", "datafusion://"])
def test_or_the_first(tmp_path, engine):
    found, reasons = copies(tmp_path, engine, ROWS, item_copies="first")
    assert reasons == {(0, 3): OTHER, (1, 1): EQUAL, (1, 3): EQUAL, (2, 1): OTHER}
    assert OTHER in found.harmless
    assert [finding.is_fault for finding in found.findings] == [False, False]
    found.check()


def test_or_neither(tmp_path):
    found, _ = copies(tmp_path, "duckdb://", ROWS, item_copies="error")
    with pytest.raises(InputError, match=r"2 rows .* such as 'a'; .*bind prepare.run.item_copies"):
        found.check()
    found, reasons = copies(tmp_path, "duckdb://", [ROWS[0], ROWS[3], ROWS[7]], item_copies="error")
    found.check()
    assert reasons == {(0, 1): EQUAL}


def test_scientific_notation_is_named(tmp_path):
    rows = [(0, row, "4.00638E+12", str(row), None, None) for row in (1, 2)]
    found, _ = copies(tmp_path, "duckdb://", rows)
    assert "'4.00638E+12' are in scientific notation" in found.hints[OTHER]


def test_of_two_snapshots_the_later_one_counts_where_that_is_bound(tmp_path):
    items, judgements = shop()
    items = [*items, *(row | {"title": f"New {row['title']}"} for row in items)]
    with pytest.raises(
        InputError, match=r"40 of 80 items rejected .*bind prepare\.run\.item_copies"
    ):
        prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS)
    for chosen, start in (("last", "New "), ("first", "")):
        summary = prepare(
            source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS, item_copies=chosen
        )
        assert {row["title"].startswith("New ") for row in read(tmp_path, "items")} == {bool(start)}
        assert [summary["items"][name] for name in ("read", "kept", "rejected")] == [80, 40, 40]
        assert len(read(tmp_path, "rejected")) == 40
    with pytest.raises(InputError, match=r"40 rows of the items share their item_id"):
        prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS, item_copies="error")


def test_one_joined_table_is_both(tmp_path):
    items, judgements = shop()
    titles = {row["item_id"]: row["title"] for row in items}
    lines = [
        f"{number},{row['item_id']},{titles[row['item_id']]},{row['query']},{row['label']}\n"
        for number, row in enumerate(judgements)
    ]
    file = tmp_path / "joined.csv"
    file.write_text("".join(["id,product_uid,product_title,search_term,relevance\n", *lines]))
    reader = Tables(
        items=str(file),
        judgements=str(file),
        item_columns={"item_id": "product_uid", "title": "product_title"},
        judgement_columns={"query": "search_term", "item_id": "product_uid", "label": "relevance"},
    )
    summary = prepare(source=reader, out_dir=tmp_path / "out", **SETTINGS)
    judged = {row["item_id"] for row in judgements}
    part = summary["items"]
    assert (part["read"], part["kept"]) == (len(judgements), len(judged))
    assert part["copies"] == part["rejected"] == len(judgements) - len(judged)
    assert summary["judgements"]["kept"] == len(judgements)
    assert {row["title"] for row in read(tmp_path / "out", "items")} == {
        titles[one] for one in judged
    }
    texts = [finding["text"] for finding in summary["findings"] if not finding["is_fault"]]
    assert any("equal copies" in text for text in texts)
    assert list(itertools.chain(*([f["table"]] for f in summary["findings"][:2]))) == [
        "items",
        "judgements",
    ]
