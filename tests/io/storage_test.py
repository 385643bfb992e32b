from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import time

import fsspec
import pytest

from dsirm_jax.data.schema import Source
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.mapping import item_mapping, split_categories
from dsirm_jax.io import storage
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import items_of, write

ROWS = [{"item_id": str(row), "title": f"title {row}"} for row in range(7)]


@pytest.fixture
def bucket():
    system = fsspec.filesystem("memory")
    yield "memory://bucket"
    system.rm("/bucket", recursive=True)


def put(path, url):
    with open(path, "rb") as source, fsspec.open(url, "wb") as target:
        target.write(source.read())
    return url


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".jsonl"])
def test_every_format_is_read_from_a_remote_store(tmp_path, bucket, suffix, packed):
    path = write(ROWS, tmp_path / f"items{suffix}{packed}")
    url = put(path, f"{bucket}/items{suffix}{packed}")
    (match,) = storage.list_files(f"{bucket}/*{suffix}{packed}")
    mapping = item_mapping({}, [], binding="Tables.item_columns")
    for file in (url, match, f"file://{path}"):
        parts = split_categories(formats.parts([file], mapping=mapping), separator="/")
        items, _ = items_of(Source(items=parts, judgements=[]))
        assert [(row["item_id"], row["title"]) for row in items] == [
            (row["item_id"], row["title"]) for row in ROWS
        ]
        assert {row["_file"] for row in items} == {file}


def test_patterns_give_each_file_once_in_order(tmp_path, bucket):
    for name in ("b.csv", "a.csv", "c[1].csv", "deep/d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
        put(tmp_path / name, f"{bucket}/{name}")
    for place in (str(tmp_path), bucket):
        names = [
            storage.list_files(pattern)
            for pattern in (
                f"{place}/b.csv",
                f"{place}/?.csv",
                [f"{place}/b.csv", f"{place}/[ab].csv"],
                f"{place}/**/d.csv",
                f"{place}/c[1].csv",
            )
        ]
        assert [[file.split(place.split("//")[-1])[1] for file in files] for files in names] == [
            ["/b.csv"],
            ["/a.csv", "/b.csv"],
            ["/b.csv", "/a.csv"] if place == str(tmp_path) else ["/b.csv", "/a.csv", "/b.csv"],
            ["/deep/d.csv"],
            ["/c[1].csv"],
        ]


def test_a_version_follows_the_contents(tmp_path, bucket):
    path, url = tmp_path / "a.csv", f"{bucket}/a.csv"
    seen = []
    for content in (b"1", b"22", b"33"):
        path.write_bytes(content)
        os.utime(path, ns=(0, content[0]))
        put(path, url)
        versions = [storage.version(file) for file in (str(path), url)]
        assert versions == [storage.version(file) for file in (str(path), url)]
        assert versions[0] == hashlib.sha256(content).hexdigest()
        assert json.loads(json.dumps(versions)) == versions
        seen.append(versions)
    assert all(a != b for before, after in itertools.pairwise(seen) for a, b in zip(before, after))


def test_of_a_local_file_nothing_but_the_contents_counts(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"one")
    os.utime(path, ns=(0, 1))
    first = storage.version(str(path))
    path.touch()
    assert storage.version(str(path)) == first
    time.sleep(0.05)  # longer than a tick of the clock of a file system
    path.write_bytes(b"two")
    os.utime(path, ns=(0, 1))
    assert storage.version(str(path)) == hashlib.sha256(b"two").hexdigest() != first


def test_what_cannot_be_reached_is_named(tmp_path, bucket):
    fsspec.register_implementation(
        "absent",
        "no_such_package.FileSystem",
        errtxt="Please install no_such_package",
        clobber=True,
    )
    (tmp_path / "empty.csv").touch()
    put(tmp_path / "empty.csv", f"{bucket}/empty.csv")
    for file, message in [
        (str(tmp_path / "none.csv"), "no such file"),
        (str(tmp_path / "none*.csv"), "no such file"),
        (str(tmp_path), "a folder; bind its files"),
        (str(tmp_path / "empty.csv"), "is empty"),
        ("memory://bucket/none.csv", "no such file"),
        ("memory://bucket/none*.csv", "no such file"),
        ("memory://bucket", "a folder; bind its files"),
        ("memory://bucket/empty.csv", "is empty"),
        ("absent://bucket/a.csv", "install no_such_package"),
        ("absent://bucket/*.csv", "install no_such_package"),
        ("nowhere://bucket/a.csv", "Protocol not known"),
    ]:
        for function in (storage.list_files, storage.version):
            if function is storage.list_files or "*" not in file:
                with pytest.raises(InputError, match=message) as error:
                    function(file)
                assert file in str(error.value)


def test_streams_unpack_files_of_several_gzip_members(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"one") + gzip.compress(b"two"))
    with storage.stream(str(path)) as stream:
        assert stream.read() == b"onetwo"
