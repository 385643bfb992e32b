from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.data import schema
from dsirm_jax.ingestion import prepare as prepare_module
from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.io.errors import InputError
from tests.ingestion.shop_rows import GAINS, SETTINGS, Rows, read, shop


def test_tables_have_the_documented_columns_and_the_rows_agree(tmp_path):
    items, judgements = shop()
    summary = prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS)
    for name in ("items", "queries", "judgements", "examples", "rejected"):
        table = pq.read_table(tmp_path / f"{name}.parquet")
        documented = getattr(schema, name.upper())
        assert [(f.name, f.nullable) for f in table.schema] == [
            (f.name, f.nullable) for f in documented
        ]
        assert [f.type for f in table.schema] == [f.type for f in documented]
    rows, queries, pairs = (read(tmp_path, name) for name in ("items", "queries", "judgements"))
    assert [row["item_id"] for row in rows] == sorted(row["item_id"] for row in items)
    assert [row["item_index"] for row in rows] == list(range(len(items)))
    assert [row["query"] for row in queries] == sorted({row["query"] for row in judgements})
    assert [row["query_index"] for row in queries] == list(range(len(queries)))
    expected = sorted((row["query"], row["item_id"], row["label"]) for row in judgements)
    assert [(row["query"], row["item_id"], row["label"]) for row in pairs] == expected
    for pair in pairs:
        assert rows[pair["item_index"]]["item_id"] == pair["item_id"]
        query = queries[pair["query_index"]]
        assert (query["query"], query["split"]) == (pair["query"], pair["split"])
        assert pair["gain"] == np.float32(GAINS[pair["label"]])
        assert pair["relevant"] == (pair["label"] == "E")
        assert pair["weight"] == 1.0
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["items"]["read"] == summary["items"]["kept"] == 40
    assert sum(split["judgements"] for split in summary["queries"]["splits"].values()) == len(pairs)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(prepare_module.OUTPUTS)


def test_split_is_the_md5_of_seed_and_query(tmp_path):
    items, judgements = shop(queries=120)
    prepare(
        source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS, test_share=0.3, head_share=0.5
    )

    def drawn(purpose, query, share):
        digest = hashlib.md5(f"5:{purpose}:{query}".encode()).hexdigest()
        return int(digest[:8], 16) / 16**8 < share

    for row in read(tmp_path, "queries"):
        if drawn("test", row["query"], 0.3):
            assert row["split"] == "test"
        else:
            assert row["split"] == ("head" if drawn("head", row["query"], 0.5) else "train")


def test_each_query_is_for_evaluation_in_one_fold_whatever_the_order_and_the_given_split(tmp_path):
    items, judgements = shop()
    judgements = [row | {"split": "test"} for row in judgements]
    order = np.random.default_rng(1).permutation(len(judgements))
    tested = []
    for number in range(4):
        queries = []
        for name, rows in (("a", judgements), ("b", [judgements[row] for row in order])):
            out = tmp_path / f"{number}{name}"
            prepare(source=Rows(items, rows), out_dir=out, **SETTINGS, fold=(number, 4))
            queries.append(read(out, "queries"))
        assert queries[0] == queries[1]
        tested += [row["query"] for row in queries[0] if row["split"] == "test"]
    assert sorted(tested) == sorted({row["query"] for row in judgements})


def test_exchanged_halves_train_on_what_the_other_kept_for_the_head(tmp_path):
    items, judgements = shop()
    splits = []
    for exchanged in (False, True):
        out = tmp_path / str(exchanged)
        prepare(
            source=Rows(items, judgements),
            out_dir=out,
            **SETTINGS,
            head_share=0.5,
            fold=(1, 3),
            exchanged=exchanged,
        )
        splits.append([row["split"] for row in read(out, "queries")])
    other = {"train": "head", "head": "train", "test": "test"}
    assert splits[1] == [other[split] for split in splits[0]]
    assert set(splits[0]) == set(other)


@pytest.mark.parametrize("case", ["ÄRMEL Shirt", "RED shoe"], ids=["umlaut", "ascii"])
def test_spellings_in_other_case_share_a_split(tmp_path, case):
    items, judgements = shop()
    spellings = [f"{case} {number}" for number in range(30)]
    judgements += [
        {"query": spelling, "item_id": "i000", "label": "E"}
        for query in spellings
        for spelling in (query, query.lower(), query.upper())
    ]
    prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS)
    splits = collections.defaultdict(set)
    for row in read(tmp_path, "queries"):
        splits[row["query"].lower()].add(row["split"])
    assert all(len(names) == 1 for names in splits.values())
    assert {split for names in splits.values() for split in names} == set(schema.SPLITS)


def test_the_split_of_a_table_is_kept_and_test_wins(tmp_path):
    items, judgements = shop()
    own = {}
    for row in judgements:
        row["split"] = own.setdefault(row["query"], ["train", "test"][len(own) % 2])
    judgements.append(judgements[0] | {"item_id": "i001", "split": "test"})
    own[judgements[0]["query"]] = "test"
    prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS)
    for row in read(tmp_path, "queries"):
        assert (row["split"] == "test") == (own[row["query"]] == "test")


def test_same_rows_whatever_the_order_and_the_files(tmp_path):
    items, judgements = shop()
    random = np.random.default_rng(1)
    items += [items[3], items[3], items[5]]  # of unequal ones the last counts
    judgements += [{**row, "label": "S", "weight": 2.5} for row in judgements[:40]]
    judgements += [{**row, "label": None, "clicks": 3} for row in judgements[20:60]]
    contents = []
    for number, parts in enumerate((1, 2, 7)):
        random.shuffle(items)
        random.shuffle(judgements)
        folder = tmp_path / str(number)
        prepare(
            source=Rows(items, judgements, parts=parts),
            out_dir=folder,
            **SETTINGS,
            max_rejected_share=0.1,
        )
        contents.append([read(folder, name) for name in ("items", "queries", "judgements")])
        contents[-1].append((folder / "vocabulary.model").read_bytes())
    assert contents[0] == contents[1] == contents[2]


ENGINES = {
    "datafusion": "datafusion://",
    "pyspark": "pyspark://?spark.master=local[2]",
}


@pytest.mark.parametrize("engine", ["datafusion", pytest.param("pyspark", marks=pytest.mark.slow)])
def test_same_rows_from_another_engine(tmp_path, engine):
    pytest.importorskip(engine)
    if engine == "pyspark" and not shutil.which("java"):
        pytest.skip("Spark needs java")
    random = np.random.default_rng(2)
    items, judgements = shop(queries=90)
    items += [{**items[3], "title": "Another title", "category": None}, {"item_id": "x"}]
    items[5]["title"] = "İstanbul ÇAY \U0001f375 &amp; מים"
    for number, row in enumerate(judgements):
        row["query"] += ["", " ÄÖ", " Ⅷ", " İ"][number % 4]
        row["query_frequency"] = float(random.lognormal(3, 2))
        row["clicks"] = int(random.integers(0, 9))
        row["label"] = row["label"] if number % 3 else None
    judgements += [judgements[0] | {"item_id": "no such"}, judgements[1] | {"clicks": -1}]
    folders = [tmp_path / "duckdb", tmp_path / engine]
    summaries = [
        prepare(
            source=Rows(items, judgements, parts=3),
            out_dir=folder,
            engine=url,
            max_rejected_share=0.2,
            **SETTINGS,
        )
        for folder, url in zip(folders, (None, ENGINES[engine]))
    ]
    assert summaries[0] == summaries[1]
    for name in ("items", "queries", "judgements", "examples", "rejected"):
        assert read(folders[0], name) == read(folders[1], name)


def test_an_engine_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"prepare\.run\.engine \(nosuch://\): .*nosuch"):
        prepare(source=Rows(*shop()), out_dir=tmp_path, engine="nosuch://", **SETTINGS)


def test_same_rows_from_several_processes(tmp_path):
    rows = Rows(*shop(), parts=3)
    for workers in (1, 3):
        prepare(source=rows, out_dir=tmp_path / str(workers), **SETTINGS | {"workers": workers})
    for name in ("items", "queries", "judgements", "examples"):
        assert read(tmp_path / "1", name) == read(tmp_path / "3", name)


ANEW = """
import sys
from dsirm_jax.ingestion.prepare import prepare
from tests.ingestion.shop_rows import SETTINGS, Rows, shop
prepare(source=Rows(*shop(), parts=3), out_dir=sys.argv[1], **SETTINGS)
"""


def test_same_bytes_from_several_processes_and_in_another(tmp_path):
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        prepare(source=Rows(*shop(), parts=3), out_dir=folder, **SETTINGS | {"workers": workers})
    subprocess.run(
        [sys.executable, "-c", ANEW, str(tmp_path / "other")],
        check=True,
        env=os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONHASHSEED": "7"},
    )
    for name in prepare_module.OUTPUTS:
        contents = {(folder / name).read_bytes() for folder in tmp_path.iterdir()}
        assert len(contents) == 1, name


@dataclasses.dataclass(frozen=True)
class Torn:
    """The same rows, whose second file of items cannot be read."""

    rows: Rows

    def files(self):
        return []

    def read(self):
        source = self.rows.read()
        parts = [source.items[0], torn, *source.items[2:]]
        return dataclasses.replace(source, items=parts)


def torn():
    raise InputError("items-1.csv: torn")


def test_a_fault_in_another_process_is_raised_as_it_is(tmp_path):
    rows = Rows(*shop(), parts=3)
    with pytest.raises(InputError, match="items-1.csv: torn"):
        prepare(source=Torn(rows), out_dir=tmp_path, **SETTINGS | {"workers": 2})


def test_what_a_killed_run_left_is_swept_away(tmp_path):
    (tmp_path / "staging").mkdir()
    for name in ("raw_items.parquet", "rejected_judgements.parquet"):
        (tmp_path / "staging" / name).write_bytes(b"half a file")
    prepare(source=Rows(*shop()), out_dir=tmp_path, **SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(prepare_module.OUTPUTS)


def test_text_adds_what_the_title_lacks_and_extras_pass_through(tmp_path):
    items, judgements = shop()
    items[0] |= {"title": "ACME  &lt;b&gt;boot", "brand": "Acme", "colour": "red&amp;blue"}
    items[1] |= {"category": [" ", None, "a&amp;b"], "brand": " "}
    items[2] |= {"category": []}
    for number, item in enumerate(items):
        item["price"] = number / 2
    items[3]["price"] = None
    source = Rows(items, judgements, extras=pa.schema([("price", pa.float64())]))
    prepare(source=source, out_dir=tmp_path, **SETTINGS)
    rows = read(tmp_path, "items")
    assert rows[0]["text"] == "ACME boot red&blue"
    assert rows[4]["text"] == f"{items[4]['title']} {items[4]['brand']}"
    assert (rows[1]["category"], rows[1]["brand"], rows[2]["category"]) == (["a&b"], None, None)
    assert [row["price"] for row in rows[:5]] == [0.0, 0.5, 1.0, None, 2.0]


BAD_ITEMS = [
    ({"item_id": ""}, "sku", "empty item_id"),
    ({"item_id": None}, "sku", "empty item_id"),
    ({"item_id": "i004", "title": "zzz"}, "sku", "duplicate item_id"),
    ({"item_id": "new", "title": " \u200b<br>"}, "title", "empty title"),
]
BAD_JUDGEMENTS = [
    ({"query": "\x00 "}, "query", "empty query"),
    ({"item_id": "  "}, "sku", "empty item_id"),
    ({"item_id": "nowhere"}, "sku", "unknown item_id"),
    ({"label": "X"}, "label", "unknown label"),
    ({"clicks": -1}, "clicks", "negative number"),
    ({"weight": float("inf")}, "weight", "not finite"),
    ({"split": "validation"}, "split", "neither train nor test"),
    ({"label": None}, "label", "neither a label nor a count"),
    ({"label": " ", "impressions": 0}, "label", "neither a label nor a count"),
]


def test_bad_rows_are_set_aside_with_file_row_column_and_reason(tmp_path):
    items, judgements = shop(queries=200)
    kept = len(items), len(judgements)
    items += [items[5] | {"item_id": "fresh"} | change for change, *_ in BAD_ITEMS]
    judgements += [judgements[5] | change for change, *_ in BAD_JUDGEMENTS]
    summary = prepare(
        source=Rows(items, judgements),
        out_dir=tmp_path,
        **SETTINGS,
        max_rejected_share=0.2,
        item_copies="first",
    )
    expected = [
        ("items", "items-0.csv", kept[0] + number, column, reason)
        for number, (_, column, reason) in enumerate(BAD_ITEMS, start=1)
    ] + [
        ("judgements", "judgements-0.csv", kept[1] + number, column, reason)
        for number, (_, column, reason) in enumerate(BAD_JUDGEMENTS, start=1)
    ]
    rejected = read(tmp_path, "rejected")
    columns = ("table", "file", "row", "column", "reason")
    assert [tuple(row[column] for column in columns) for row in rejected] == expected
    for name, count in zip(("items", "judgements"), kept):
        part = summary[name]
        assert part["kept"] == count
        assert part["kept"] + part["rejected"] + part.get("unrated", 0) == part["read"]
        assert sum(part["reasons"].values()) == part["rejected"]
    assert summary["judgements"]["unrated"] == 2


@pytest.mark.parametrize("table", ["items", "judgements"])
def test_too_many_bad_rows_stop_the_run_and_leave_only_the_rejected(tmp_path, table):
    items, judgements = shop()
    prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS)
    if table == "items":
        items += [{"item_id": f"new {number}", "title": ""} for number in range(3)]
        message = r"3 of 43 items rejected \(3 empty title\), the first: items-0.csv row 41 column "
    else:
        for row in judgements[:50]:
            row["label"] = "perfect"
        message = r"50 of \d+ judgements rejected \(50 unknown label\), the first: judgements-0.csv"
    with pytest.raises(InputError, match=message) as error:
        prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["rejected.parquet"]
    assert {row["table"] for row in read(tmp_path, "rejected")} == {table}


def test_a_split_without_a_relevant_judgement_stops_the_run(tmp_path):
    items, judgements = shop()
    for row in judgements:
        row["split"] = "train"
    with pytest.raises(InputError, match="split test has 0 queries"):
        prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS)
    for row in judgements:
        row["split"] = None
        row["label"] = "S"
    with pytest.raises(InputError, match=r"split train has .* no relevant one"):
        prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS)


@pytest.mark.parametrize("empty", ["items", "judgements"])
def test_a_source_without_rows(tmp_path, empty):
    items, judgements = shop()
    rows = {"items": items, "judgements": judgements} | {empty: []}
    source = Rows(rows["items"], rows["judgements"])
    with pytest.raises(InputError, match=f"the source has no {empty}"):
        prepare(source=source, out_dir=tmp_path, **SETTINGS)


def test_the_vocabulary_sees_no_held_out_query(tmp_path):
    items, judgements = shop()
    for row in judgements:
        row["split"] = "test" if row["query"].endswith("7") else "train"
        row["query"] = "ωψχ" if row["split"] == "test" else "ßðþ " + row["query"]
    prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS | {"vocabulary_size": 400})
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "vocabulary.model"))
    pieces = "".join(model.id_to_piece(number) for number in range(model.vocab_size()))
    assert "þ" in pieces
    assert not set("ωψχ") & set(pieces)


def test_a_vocabulary_given_is_taken(tmp_path):
    rows = Rows(*shop())
    prepare(source=rows, out_dir=tmp_path / "a", **SETTINGS)
    model = tmp_path / "a" / "vocabulary.model"
    prepare(source=rows, out_dir=tmp_path / "b", **(SETTINGS | {"seed": 6}), vocabulary=str(model))
    assert (tmp_path / "b" / "vocabulary.model").read_bytes() == model.read_bytes()


WORDS = st.none() | st.text(max_size=6) | st.sampled_from(["i001", "E", "test", "NULL", "1"])


@settings(deadline=None, max_examples=15)
@given(
    items=st.lists(
        st.fixed_dictionaries({"item_id": WORDS, "title": WORDS, "category": st.lists(WORDS)})
    ),
    judgements=st.lists(
        st.fixed_dictionaries(
            {
                "query": WORDS,
                "item_id": WORDS,
                "label": WORDS,
                "clicks": st.none() | st.integers(-(2**63), 2**63 - 1),
                "weight": st.none() | st.floats(width=32),
                "split": WORDS,
            }
        )
    ),
)
def test_no_row_is_lost_without_a_reason(tmp_path_factory, items, judgements):
    folder = tmp_path_factory.mktemp("prepare")
    good = shop()
    summary = prepare(
        source=Rows(good[0] + items, good[1] + judgements, parts=2),
        out_dir=folder,
        **(SETTINGS | {"vocabulary_size": 4000}),  # as many odd characters as hypothesis invents
        max_rejected_share=1.0,
    )
    rejected = read(folder, "rejected")
    for name, rows in (("items", good[0] + items), ("judgements", good[1] + judgements)):
        places = {(row["file"], row["row"]) for row in rejected if row["table"] == name}
        unrated = summary[name].get("unrated", 0)
        assert len(places) == summary[name]["rejected"] + unrated
        assert summary[name]["read"] == len(rows) == summary[name]["kept"] + len(places)
    assert summary["items"]["kept"] == len(read(folder, "items"))
