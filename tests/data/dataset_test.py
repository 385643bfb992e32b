"""The TFDS dataset holds exactly what the tables hold, and is the same when built again."""

import hashlib
import operator
import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from dsirm_jax.data import dataset
from dsirm_jax.data.schema import EXAMPLES
from dsirm_jax.io.errors import InputError

QUERIES, ITEMS = 30, 40


def _tables(folder, *, relevant=None):
    random = np.random.default_rng(0)
    items = [
        {"item_index": item, "item_id": f"i{item:03}", "text": f"thing {item} “größe” {item % 7}"}
        for item in range(ITEMS)
    ]
    examples = [
        {
            "query": f"query {query}",
            "text": items[item]["text"],
            "query_index": query,
            "item_index": int(item),
            "gain": float(np.float32(random.random())),
            "relevant": bool(random.integers(2)) if relevant is None else relevant,
            "weight": float(np.float32(1 + query / 7)),
            "split": ["train", "head", "test"][query % 3],
        }
        for query in range(QUERIES)
        for item in sorted(random.choice(ITEMS, 5, replace=False))
    ]
    table = pa.Table.from_pylist(examples, schema=EXAMPLES)
    pq.write_table(table, folder / "examples.parquet", row_group_size=11)
    pq.write_table(pa.Table.from_pylist(items), folder / "items.parquet", row_group_size=7)
    return items, examples


def _read(config, split, data_dir):
    builder = tfds.builder(f"shop_search/{config}:2.0.0", data_dir=data_dir)
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
    items, examples = _tables(folder)
    dataset.write_dataset(prepare_dir=folder, data_dir=folder / "tfds")
    return folder, items, examples


SPLITS = {
    "train_relevant": lambda row: row["split"] == "train" and row["relevant"],
    "train_irrelevant": lambda row: row["split"] == "train" and not row["relevant"],
    "head": lambda row: row["split"] == "head",
    "test": lambda row: row["split"] == "test",
    "train_relevant+train_irrelevant": lambda row: row["split"] == "train",
}


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_holds_its_judgements_with_the_items_texts(built, split):
    folder, _, examples = built
    expected = [
        {name: value for name, value in row.items() if name != "split"}
        for row in examples
        if SPLITS[split](row)
    ]
    rows = _read("judgements", split, folder / "tfds")
    pair = operator.itemgetter("query_index", "item_index")
    assert sorted(rows, key=pair) == sorted(expected, key=pair)
    info = tfds.builder("shop_search/judgements:2.0.0", data_dir=folder / "tfds").info
    assert info.splits[split].num_examples == len(expected) > 0


def test_a_split_without_rows_is_left_out(tmp_path):
    _tables(tmp_path, relevant=True)
    dataset.write_dataset(prepare_dir=tmp_path, data_dir=tmp_path / "tfds")
    info = tfds.builder("shop_search/judgements:2.0.0", data_dir=tmp_path / "tfds").info
    assert set(info.splits) == {"train_relevant", "head", "test"}


def test_items_are_all_there(built):
    folder, items, _ = built
    rows = _read("items", "train", folder / "tfds")
    assert sorted((row["item_index"], row["text"]) for row in rows) == [
        (item["item_index"], item["text"]) for item in items
    ]


def test_order_on_disk_is_shuffled(built):
    folder, *_ = built
    order = [row["item_index"] for row in _read("items", "train", folder / "tfds")]
    assert order != sorted(order)


def test_building_again_replaces_and_gives_the_same_bytes(built, tmp_path):
    folder, *_ = built
    before = _checksums(folder / "tfds")
    dataset.write_dataset(prepare_dir=folder, data_dir=tmp_path)
    assert _checksums(tmp_path) == before

    other = tmp_path / "other"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("tfds"))
    pq.write_table(pq.read_table(folder / "items.parquet").slice(0, 10), other / "items.parquet")
    dataset.write_dataset(prepare_dir=other, data_dir=tmp_path)
    assert len(_read("items", "train", tmp_path)) == 10


ANEW = """
import sys
from dsirm_jax.data import dataset
dataset.write_dataset(prepare_dir=sys.argv[1], data_dir=sys.argv[2])
"""


def test_all_bytes_are_the_same_in_another_process(built, tmp_path):
    folder, *_ = built
    subprocess.run(
        [sys.executable, "-c", ANEW, str(folder), str(tmp_path)],
        check=True,
        env=os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONHASHSEED": "7"},
    )
    contents = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (folder / "tfds", tmp_path)
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 10


def test_row_groups_and_their_order_change_nothing(built, tmp_path):
    folder, *_ = built
    for name in ("items.parquet", "examples.parquet"):
        table = pq.read_table(folder / name)
        backwards = table.take(np.arange(len(table))[::-1])
        pq.write_table(backwards, tmp_path / name, row_group_size=50)
    dataset.write_dataset(prepare_dir=tmp_path, data_dir=tmp_path / "tfds")
    assert _checksums(tmp_path / "tfds") == _checksums(folder / "tfds")


def test_beam_writes_the_same_examples_in_the_same_order(built, tmp_path):
    pytest.importorskip("apache_beam")
    folder, *_ = built
    dataset.write_dataset(prepare_dir=folder, data_dir=tmp_path, beam_runner="DirectRunner")
    for config, split in [("items", "train"), *(("judgements", split) for split in SPLITS)]:
        assert _read(config, split, tmp_path) == _read(config, split, folder / "tfds")


def test_a_runner_without_beam_is_an_input_error(built, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(InputError, match=r"pip install '\.\[beam\]' in a checkout"):
        dataset.write_dataset(prepare_dir=built[0], data_dir=tmp_path, beam_runner="DirectRunner")


def test_nothing_is_asked_of_the_network_and_nothing_is_said(built, tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    dataset.write_dataset(prepare_dir=built[0], data_dir=tmp_path)
    assert capsys.readouterr().out == ""
