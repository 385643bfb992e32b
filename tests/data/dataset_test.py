"""The TFDS dataset holds exactly what the tables hold, and is the same when built again."""

import hashlib
import socket

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from dsirm_jax.data import dataset

QUERIES, ITEMS = 30, 40


def _tables(folder):
    random = np.random.default_rng(0)
    items = pa.table(
        {
            "item_index": pa.array(range(ITEMS), pa.int64()),
            "item_id": [f"i{item:03}" for item in range(ITEMS)],
            "text": [f"thing {item} “größe” {item % 7}" for item in range(ITEMS)],
            "truth_type": ["thing"] * ITEMS,
        }
    )
    splits = ["train", "head", "test"]
    rows = [
        {
            "query_index": query,
            "item_index": int(item),
            "query": f"query {query}",
            "gain": float(np.float32(random.random())),
            "relevant": bool(random.integers(2)),
            "weight": float(np.float32(1 + query / 7)),
            "split": splits[query % 3],
        }
        for query in range(QUERIES)
        for item in random.choice(ITEMS, 5, replace=False)
    ]
    schema = pa.schema(
        {
            "query_index": pa.int64(),
            "item_index": pa.int64(),
            "query": pa.string(),
            "gain": pa.float32(),
            "relevant": pa.bool_(),
            "weight": pa.float32(),
            "split": pa.string(),
        }
    )
    judgements = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(items, folder / "items.parquet", row_group_size=7)
    pq.write_table(judgements, folder / "judgements.parquet", row_group_size=11)
    return items.to_pylist(), rows


def _read(config, split, data_dir):
    builder = tfds.builder(f"shop_search/{config}:1.0.0", data_dir=data_dir)
    rows = tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False))
    decoded = []
    for row in rows:
        plain = {name: np.asarray(value).item() for name, value in row.items()}
        decoded.append({k: v.decode() if isinstance(v, bytes) else v for k, v in plain.items()})
    return decoded


def _checksums(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*tfrecord*"))
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepare")
    items, judgements = _tables(folder)
    dataset.build(prepare_dir=folder, data_dir=folder / "tfds")
    return folder, items, judgements


@pytest.mark.parametrize("split", ["train", "head", "test"])
def test_a_split_holds_its_judgements_with_the_items_texts(built, split):
    folder, items, judgements = built
    expected = {
        (row["query_index"], row["item_index"]): {
            "query": row["query"],
            "text": items[row["item_index"]]["text"],
            **{k: row[k] for k in ("query_index", "item_index", "gain", "relevant", "weight")},
        }
        for row in judgements
        if row["split"] == split
    }
    found = _read("judgements", split, folder / "tfds")
    assert len(found) == len(expected)
    assert {(row["query_index"], row["item_index"]): row for row in found} == expected


def test_items_are_all_there(built):
    folder, items, _ = built
    found = _read("items", "train", folder / "tfds")
    assert sorted((row["item_index"], row["text"]) for row in found) == [
        (item["item_index"], item["text"]) for item in items
    ]


def test_order_on_disk_is_shuffled(built):
    folder, *_ = built
    order = [row["item_index"] for row in _read("items", "train", folder / "tfds")]
    assert order != sorted(order)


def test_building_again_replaces_and_gives_the_same_bytes(built, tmp_path):
    folder, *_ = built
    before = _checksums(folder / "tfds")
    dataset.build(prepare_dir=folder, data_dir=tmp_path)
    assert _checksums(tmp_path) == before

    changed = pq.read_table(folder / "items.parquet").slice(0, 10)
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(changed, other / "items.parquet")
    judged = pq.read_table(folder / "judgements.parquet")
    pq.write_table(judged, other / "judgements.parquet")
    dataset.build(prepare_dir=other, data_dir=tmp_path)
    assert len(_read("items", "train", tmp_path)) == 10


def test_nothing_is_asked_of_the_network_and_nothing_is_said(built, tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    dataset.build(prepare_dir=built[0], data_dir=tmp_path)
    assert capsys.readouterr().out == ""
