from __future__ import annotations

import functools

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.ingestion.joins.connections import connect
from dsirm_jax.ingestion.joins.joining import join_ids
from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.ingestion.validation import ids
from dsirm_jax.io.errors import InputError
from tests.ingestion.shop_rows import SETTINGS, Rows, read, shop


def joined(folder, known, judged, engine="duckdb://"):
    """Returns the ids of items, by number, and those of judgements, by row, and what is said."""
    path = folder / "items.parquet"
    known = sorted(known)
    pq.write_table(pa.table({"item_index": range(len(known)), "item_id": known}), path)
    pq.write_table(
        pa.table({"_row": range(len(judged)), "item_id": judged}), folder / "judged.parquet"
    )
    with connect(engine, binding="b") as database:
        found = join_ids(
            database,
            database.read_parquet(str(folder / "judged.parquet")),
            database.read_parquet(str(path)),
            path=path,
            folder=folder,
        )
        rows = found.judgements.order_by("_row").to_pyarrow()["item_id"].to_pylist()
        items = found.items.order_by("item_index").to_pyarrow()["item_id"].to_pylist()
    assert items == list(ids.stored_ids(path)) == sorted(items)
    return items, rows, found


@pytest.mark.parametrize("engine", ["duckdb://", "datafusion://"])
@pytest.mark.parametrize(
    ("known", "judged", "items", "rows"),
    [
        pytest.param(["7", "8"], ["7", "9"], ["7", "8"], ["7", "9"], id="as they stand"),
        pytest.param(
            ["17", "18"],
            ["17.0", "18", "17.0", "1.8E+01"],
            ["17", "18"],
            ["17", "18", "17", "18"],
            id="judgements are floats",
        ),
        pytest.param(
            ["17.0", "9.0", "x"],
            ["17", "17.0", "x"],
            ["17", "9", "x"],
            ["17", "17", "x"],
            id="items are floats",
        ),
        pytest.param(
            ["17", "17.0", "9.0"],
            ["17", "17.0", "9"],
            ["17", "17.0", "9"],
            ["17", "17.0", "9"],
            id="both are there",
        ),
        pytest.param(["17.0"], ["1.7E+01"], ["17.0"], ["17.0"], id="neither is plain"),
        pytest.param(["00017"], ["17", "17.0"], ["00017"], ["17", "17.0"], id="zeros are no guess"),
    ],
)
def test_numbers_are_joined_from_either_side(tmp_path, engine, known, judged, items, rows):
    assert joined(tmp_path, known, judged, engine)[:2] == (items, rows)


def test_what_is_read_otherwise_is_told(tmp_path):
    *_, found = joined(tmp_path, ["17"], ["17.0"])
    (finding,) = found.findings
    assert (finding.table, finding.is_fault) == ("judgements", False)
    assert "1 ids written as numbers, such as '17.0'" in finding.text and "'17'" in finding.text
    *_, found = joined(tmp_path, ["17.0", "18.0"], ["17"])
    (finding,) = found.findings
    assert (finding.table, finding.is_fault) == ("items", False)
    assert "2 ids written as numbers, such as '17.0'" in finding.text
    assert joined(tmp_path, ["17"], ["17"])[2].findings == []


def test_unknown_ids_are_shown_beside_the_nearest(tmp_path):
    *_, found = joined(tmp_path, ["00002", "00003"], ["2", "x"])
    (finding,) = found.findings
    assert finding.is_fault
    assert "2 ids are no item's; '2': the catalogue has '00002'; 1 of 2 unknown ids" in finding.text


def test_items_that_all_but_agree_are_told_and_how_many_are_judged(tmp_path):
    *_, found = joined(tmp_path, ["00017", "17", "18", "Ab", "ab"], ["17", "18", "17"])
    items, judged = found.findings
    assert (items.table, items.is_fault) == ("items", True)
    assert "4 ids are another's but for" in items.text and "'00017' and '17'" in items.text
    assert (judged.table, judged.is_fault) == ("judgements", True)
    assert "1 judged ids also exist otherwise written, such as '17' and '00017'" in judged.text


@pytest.mark.parametrize("of", ["items", "judgements"])
def test_floats_of_either_table_are_prepared(tmp_path, of):
    items, judgements = shop()
    for rows, name in ((items, "items"), (judgements, "judgements")):
        for row in rows:
            number = 100_000 + int(row["item_id"][1:])
            row["item_id"] = f"{number}.0" if name == of else f"\u00a0{number} "
    summary = prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS)
    assert summary["judgements"]["rejected"] == summary["items"]["rejected"] == 0
    found = [row["item_id"] for row in read(tmp_path, "items")]
    assert found == [str(number) for number in range(100_000, 100_040)]
    indices = {row["item_id"]: row["item_index"] for row in read(tmp_path, "items")}
    for row in read(tmp_path, "judgements"):
        assert row["item_index"] == indices[row["item_id"]]


def test_lost_zeros_stop_with_what_to_do(tmp_path):
    items, judgements = shop()
    for row in items:
        row["item_id"] = f"00{row['item_id'][1:]}"
    for row in judgements:
        row["item_id"] = row["item_id"][1:].lstrip("0") or "0"
    ready = functools.partial(prepare, out_dir=tmp_path, **SETTINGS)
    with pytest.raises(InputError, match=r"'0': the catalogue has '00000'; 40 of 40 unknown ids"):
        ready(source=Rows(items, judgements))
    judgements = [{**row, "item_id": row["item_id"].zfill(5)} for row in judgements]
    assert ready(source=Rows(items, judgements))["judgements"]["rejected"] == 0
