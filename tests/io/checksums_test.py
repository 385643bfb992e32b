import json
import os

import pytest

from dsirm_jax.io import checksums
from dsirm_jax.io.checksums import Checksum
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import write_json

# FIPS 180-2, appendix B.1, and the SHA-256 of no bytes.
ABC = Checksum(bytes=3, sha256="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
NOTHING = Checksum(
    bytes=0, sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"")
    return tmp_path


def test_checksums_are_those_of_the_standard(folder):
    assert checksums.checksums(folder, ["deep/a", "b"]) == {"deep/a": ABC, "b": NOTHING}


def test_what_was_written_has_no_fault(folder):
    known = {"deep/a": ABC, "b": NOTHING}
    assert checksums.faults(folder, known, present=known) == []


@pytest.mark.parametrize(
    ("contents", "fault"),
    [
        (b"abd", "is not what was written"),
        (b"abcd", "has 4 bytes in place of 3"),
        (None, "is missing"),
    ],
    ids=["flipped", "longer", "missing"],
)
def test_a_fault_begins_with_the_file(folder, contents, fault):
    path = folder / "deep/a"
    path.unlink()
    if contents is not None:
        path.write_bytes(contents)
    assert checksums.faults(folder, {"deep/a": ABC}) == [f"{path} {fault}"]


def test_further_files_are_faults_where_there_may_be_none(folder):
    present = ["deep/a", "b"]
    (fault,) = checksums.faults(folder, {"deep/a": ABC}, present=present)
    assert fault == f"{folder / 'b'} is none of the files that were written"


def test_sizes_alone_are_compared_where_that_is_wanted(folder):
    (folder / "deep/a").write_bytes(b"abd")
    assert checksums.faults(folder, {"deep/a": ABC}, contents=False) == []


def test_a_file_that_changed_at_the_same_time_is_read_again(folder):
    path, times = folder / "deep/a", (10**18, 10**18)
    os.utime(path, ns=times)
    assert checksums.checksum(path) == ABC
    path.write_bytes(b"abd")
    os.utime(path, ns=times)
    assert checksums.checksum(path) != ABC


def test_a_sealed_object_is_read_as_it_was(tmp_path):
    path = tmp_path / "manifest.json"
    content = {"b": [1, 2.5, None, 1e-05], "a": {"ü": "x"}}
    write_json(path, checksums.sealed(content))
    assert checksums.unsealed(path, otherwise="is damaged") == content


def test_every_flipped_bit_of_a_sealed_object_is_noticed(tmp_path):
    path = tmp_path / "manifest.json"
    write_json(path, checksums.sealed({"rate": 1e-05, "name": "x", "kept": [True, None]}))
    contents = path.read_bytes()
    for bit in range(8 * len(contents)):
        changed = bytearray(contents)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"manifest\.json is damaged"):
            checksums.unsealed(path, otherwise="is damaged")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "1", '"checksum"', "{}", '{"checksum": []}', "[" * 100_000, "\ud800", '{"a": NaN}'],
    ids=["empty", "list", "number", "text", "no seal", "no text", "deep", "no UTF-8", "NaN"],
)
def test_what_is_no_sealed_object_is_one_line(tmp_path, text):
    path = tmp_path / "manifest.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        checksums.unsealed(path, otherwise="is damaged")


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "manifest.json"
    write_json(path, checksums.sealed({}))
    monkeypatch.setattr(checksums, "MANIFEST_BYTES", 10)
    with pytest.raises(InputError, match="is damaged"):
        checksums.unsealed(path, otherwise="is damaged")


@pytest.mark.parametrize(
    "known",
    [
        {"bytes": -1, "sha256": ABC.sha256},
        {"bytes": True, "sha256": ABC.sha256},
        {"bytes": 1.0, "sha256": ABC.sha256},
        {"bytes": 3, "sha256": ABC.sha256.upper()},
        {"bytes": 3, "sha256": None},
    ],
    ids=json.dumps,
)
def test_what_is_no_checksum_is_refused(known):
    with pytest.raises(InputError, match=r"Checksum\."):
        Checksum(**known)
