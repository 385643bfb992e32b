"""What a user can get wrong, through the command line: one clear line, nothing half-written."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax import cli

ITEMS = 40


def item_lines():
    return ["item_id,title"] + [f"i{n},good thing number {n}" for n in range(ITEMS)]


def judgement_lines():
    rows = [(q, n) for q in range(20) for n in (q, q + 20)]
    return ["query,item_id,label"] + [f"thing {q},i{n},{int(n == q)}" for q, n in rows]


class Shop:
    """A small shop as CSV files, and `dsirm prepare` on it."""

    def __init__(self, folder):
        self.items, self.judgements = folder / "items.csv", folder / "judgements.csv"
        self.model_dir = folder / "run"
        self.write(self.items, item_lines())
        self.write(self.judgements, judgement_lines())

    @staticmethod
    def write(path, lines):
        path.write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines))

    def dsirm(self, stage, *flags):
        return cli.main(
            [
                stage,
                "--gin_file=gin/runs/tables.gin",
                f"--gin.ITEMS='{self.items}'",
                f"--gin.JUDGEMENTS='{self.judgements}'",
                f"--gin.MODEL_DIR='{self.model_dir}'",
                "--gin.prepare.run.vocabulary_size=600",
                *flags,
            ]
        )

    def outputs(self):
        folder = self.model_dir / "prepare"
        return sorted(p.name for p in folder.glob("*") if p.name != "stage.json")


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


def fails(shop, capsys, *parts, left=(), flags=()):
    """The stage exits with 2 and one line that holds all parts; only `left` is written."""
    assert shop.dsirm("prepare", *flags) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    for part in parts:
        assert part in message, message
    assert shop.outputs() == list(left)


def test_a_good_shop_is_prepared(shop):
    assert shop.dsirm("prepare") == 0
    summary = json.loads((shop.model_dir / "prepare/summary.json").read_text())
    assert summary["items"]["kept"] == ITEMS


def test_missing_column(shop, capsys):
    shop.write(shop.items, ["item_id,name", "i1,good"])
    fails(shop, capsys, "items.csv", "title", "name")


def test_empty_file(shop, capsys):
    shop.write(shop.judgements, [""])
    fails(shop, capsys, "judgements.csv", "empty")


def test_header_only(shop, capsys):
    shop.write(shop.items, ["item_id,title"])
    fails(shop, capsys, "items.csv")


def test_not_parquet(shop, capsys):
    shop.items = shop.items.with_suffix(".parquet")
    shop.items.write_text("hello")
    fails(shop, capsys, "items.parquet", "Parquet")


def test_not_gzip(shop, capsys):
    shop.items = shop.items.with_name("items.csv.gz")
    shop.items.write_text("hello")
    fails(shop, capsys, "items.csv.gz")


def test_truncated_gzip(shop, capsys):
    shop.items = shop.items.with_name("items.csv.gz")
    shop.items.write_bytes(gzip.compress("\n".join(item_lines()).encode())[:-20])
    fails(shop, capsys, "items.csv.gz")


def test_no_such_file(shop, capsys):
    shop.items.unlink()
    fails(shop, capsys, "items.csv")


STRICT = ["--gin.prepare.run.max_rejected_share=0.0"]
BAD_ROWS = {
    "invalid UTF-8": ("items", b"bad,caf\x81", ["row 41", "title", "UTF-8"]),
    "empty title": ("items", b"bad,  ", ["row 41", "title", "empty"]),
    "duplicate item id": ("items", b"i7,good thing again", ["item_id", "i7"]),
    "unknown item": ("judgements", b"thing 1,nowhere,1", ["row 41", "item_id", "nowhere"]),
    "label outside the map": ("judgements", b"thing 1,i9,7", ["row 41", "label", "7"]),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_stops_a_strict_run(shop, capsys, kind):
    table, line, parts = BAD_ROWS[kind]
    lines = item_lines() if table == "items" else judgement_lines()
    shop.write(getattr(shop, table), [*lines, line])
    fails(shop, capsys, f"{table}.csv", *parts, left=["rejected.parquet"], flags=STRICT)


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_is_set_aside_with_its_reason_otherwise(shop, kind):
    table, line, parts = BAD_ROWS[kind]
    lines = item_lines() if table == "items" else judgement_lines()
    shop.write(getattr(shop, table), [*lines, line])
    assert shop.dsirm("prepare") == 0
    (rejected,) = pq.read_table(shop.model_dir / "prepare/rejected.parquet").to_pylist()
    assert rejected["table"] == table
    assert rejected["file"].endswith(f"{table}.csv")
    assert rejected["row"] in (8, 41)
    assert rejected["column"] in parts


def test_nan_vector(shop, capsys, tmp_path):
    assert shop.dsirm("prepare") == 0
    ids = pq.read_table(shop.model_dir / "prepare/items.parquet")["item_id"].to_pylist()
    vectors = np.ones((ITEMS, 4), np.float32)
    vectors[5, 2] = np.nan
    table = pa.table({"item_id": ids, "vector": list(vectors)})
    pq.write_table(table, tmp_path / "vectors.parquet")
    flags = [
        "--gin.encode.run.encoder=@precomputed.Precomputed()",
        f"--gin.precomputed.Precomputed.items='{tmp_path / 'vectors.parquet'}'",
        f"--gin.precomputed.Precomputed.queries='{tmp_path / 'vectors.parquet'}'",
    ]
    assert shop.dsirm("encode", *flags) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    for part in ("vectors.parquet", "row 6", "column 'vector'"):
        assert part in message
    assert not list((shop.model_dir / "encode").glob("*.parquet"))
