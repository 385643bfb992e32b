"""Values of a shared store: what was written is read, and nothing else is."""

import dataclasses
import shutil
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.serving.bundle.contents import Bundle, open_bundle
from dsirm_jax.serving.queries.values import HEAD, LENGTH, Values, version_of
from dsirm_jax.serving.update import update
from tests.serving import tiny

QUERY = tiny.QUERIES[3]


def test_a_value_lies_as_the_module_says(values, rows, bundle):
    key, value = rows[QUERY]
    assert key == b"dsirm:" + values.version.hex().encode() + b":" + QUERY.encode()
    record = dict(bundle.catalogue.cached_queries())[QUERY]
    rest = struct.pack("<I", len(record)) + record + QUERY.encode()
    checksum = zlib.crc32(b"dsirmQ\x00\x01" + values.version + rest)
    assert value == b"dsirmQ\x00\x01" + values.version + struct.pack("<I", checksum) + rest


@settings(deadline=None, max_examples=200)
@given(place=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_bit_that_flips_anywhere_is_noticed(values, rows, place, bit):
    _, value = rows[QUERY]
    damaged = bytearray(value)
    damaged[place % len(value)] ^= 1 << bit
    assert values.row(QUERY, bytes(damaged)) is None


@settings(deadline=None, max_examples=100)
@given(value=st.binary(max_size=200), length=st.integers(0, 10_000))
def test_neither_anything_else_nor_a_part_is_a_value(values, rows, value, length):
    _, whole = rows[QUERY]
    assert values.row(QUERY, value) is None
    assert values.row(QUERY, whole[:length]) is None or length >= len(whole)
    assert values.row(QUERY, whole + (value or b"x")) is None


def test_a_value_under_the_key_of_another_query_is_none(values, rows):
    _, value = rows[QUERY]
    assert values.row(tiny.QUERIES[4], value) is None
    assert values.row(QUERY.upper(), value).text == QUERY


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("near", 60),
        ("voters", 8),
        ("sids", 6),
        ("vector", np.nan),
        ("cosines", np.nan),
        ("known", np.inf),
    ],
)
def test_a_record_that_refers_to_nothing_or_is_no_number_is_none(
    values, rows, bundle, field, wrong
):
    text, record = next(bundle.catalogue.cached_queries())
    changed = np.frombuffer(record, values.record).copy()
    changed[field].reshape(-1)[0] = wrong
    assert values.row(text, values.value(text, changed[0])) is None
    assert values.row(text, rows[text][1]) is not None


def test_other_models_items_or_settings_have_other_keys_and_values(made, bundle, values, rows):
    manifest = bundle.manifest
    kept = {"packages": {}, "stages": {"a": 1}, "queries": 0}
    assert version_of(changed(bundle, **kept)) == values.version
    others = [
        {"sid_version": "w"},
        {"settings": dataclasses.replace(manifest.settings, beams=2)},
        *(
            {"files": manifest.files | {name: manifest.files["model/head-full.safetensors"]}}
            for name in (
                "model/parameters.safetensors",
                "model/vocabulary.model",
                "catalogue-0001/vectors.npy",
                "catalogue-0001/sids.npy",
                "catalogue-0001/voters.safetensors",
            )
        ),
    ]
    versions = {version_of(changed(bundle, **other)) for other in others}
    assert len(versions - {values.version}) == len(others)
    stranger = dataclasses.replace(values, version=versions.pop())
    assert stranger.key(QUERY) != rows[QUERY][0]
    assert stranger.row(QUERY, rows[QUERY][1]) is None


def changed(bundle, **fields):
    other = Bundle(path=bundle.path, manifest=dataclasses.replace(bundle.manifest, **fields))
    vars(other)["catalogue"] = bundle.catalogue
    return other


@pytest.mark.slow
def test_further_queries_keep_the_version_and_further_items_do_not(made, values, tmp_path):
    path = shutil.copytree(made, tmp_path / "bundle")
    (tmp_path / "queries.csv").write_text("query\ngreen phone case\n")
    update(path, items=None, queries=str(tmp_path / "queries.csv"))
    assert Values.of(open_bundle(path)).version == values.version
    (tmp_path / "items.csv").write_text("item_id,title,price,material\nnew,red mug,3.5,wood\n")
    update(path, items=str(tmp_path / "items.csv"), queries=None)
    assert Values.of(open_bundle(path)).version != values.version


def test_head_and_length_are_of_32_bytes():
    assert HEAD.size + LENGTH.size == 32
