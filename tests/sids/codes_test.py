import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.io.errors import InputError
from dsirm_jax.sids import codes


@st.composite
def sids_and_sizes(draw):
    sizes = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)))
    row = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    rows = draw(st.lists(row, min_size=1, max_size=30))
    return np.asarray(rows, np.int32), sizes


def test_tokens_by_hand():
    sids = np.array([[0, 0, 0], [3, 4, 5]])
    tokens = codes.to_tokens(sids, sizes=(4, 5, 6), text_vocab_size=100)
    assert tokens.tolist() == [[100, 104, 109], [103, 108, 114]]
    assert codes.to_tokens(sids[:, :2], sizes=(4, 5, 6), text_vocab_size=100).tolist() == [
        [100, 104],
        [103, 108],
    ]


@settings(deadline=None, max_examples=30)
@given(sids_and_sizes())
def test_tokens_are_distinct_per_level_and_return(drawn):
    sids, sizes = drawn
    tokens = codes.to_tokens(sids, sizes=sizes, text_vocab_size=7)
    assert tokens.min() >= 7 and tokens.max() < 7 + sum(sizes)
    level_of = np.searchsorted(np.cumsum(sizes), tokens - 7, side="right")
    assert (level_of == np.arange(len(sizes))).all()
    np.testing.assert_array_equal(codes.from_tokens(tokens, sizes=sizes, text_vocab_size=7), sids)


@settings(deadline=None, max_examples=30)
@given(sids_and_sizes())
def test_packing_keeps_the_order_of_tuples_and_returns(drawn):
    sids, sizes = drawn
    keys = codes.pack(sids, sizes=sizes)
    np.testing.assert_array_equal(codes.unpack(keys, sizes=sizes), sids)
    assert [tuple(row) for row in sids[np.argsort(keys, kind="stable")]] == sorted(
        tuple(row) for row in sids
    )


@settings(deadline=None, max_examples=30)
@given(sids_and_sizes())
def test_prefix_keys_agree_exactly_when_prefixes_do(drawn):
    sids, sizes = drawn
    keys = codes.prefix_keys(sids, sizes=sizes)
    for depth in range(1, len(sizes) + 1):
        same_prefix = (sids[:, None, :depth] == sids[None, :, :depth]).all(-1)
        np.testing.assert_array_equal(
            keys[:, None, depth - 1] == keys[None, :, depth - 1], same_prefix
        )
    np.testing.assert_array_equal(keys[:, -1], codes.pack(sids, sizes=sizes))


def test_the_largest_packable_sizes():
    sizes = (2**21,) * 3
    largest = np.array([[2**21 - 1] * 3])
    assert codes.pack(largest, sizes=sizes).tolist() == [2**63 - 1]
    with pytest.raises(InputError, match=r"2\^63"):
        codes.pack(largest, sizes=(2**22, 2**21, 2**21))


@pytest.mark.parametrize(
    ("sids", "said"),
    [
        pytest.param(
            [[0, 1], [0, 5]], "row 2, column sid, level 2: code 5 is not in 0..4", id="too large"
        ),
        pytest.param([[-1, 1]], "row 1, column sid, level 1: code -1", id="negative"),
        pytest.param([[1, 1, 1]], "3 levels", id="too many levels"),
    ],
)
def test_validate_names_row_and_level(sids, said):
    with pytest.raises(InputError, match=said) as error:
        codes.validate(np.array(sids), sizes=(4, 5), source="sids.parquet")
    assert str(error.value).startswith("sids.parquet")


def test_table_round_trip_and_schema(tmp_path):
    path = tmp_path / "sids.parquet"
    sids = np.array([[1, 2, 3], [0, 0, 9]])
    distances = np.array([[0.5, 0.25, 0.125], [3.0, 2.0, 1.0]])
    with codes.sid_writer(path, version="v1") as write:
        for row, item_id in enumerate(["b", "a"]):
            of_row = slice(row, row + 1)
            write(pa.array([item_id]), sids[of_row], distances[of_row], np.array([row + 0.5]))
    schema = pq.read_schema(path)
    assert schema.field("item_id").type == pa.string()
    assert schema.field("sid").type == pa.list_(pa.int32())
    assert schema.field("distances").type == pa.list_(pa.float32())
    assert schema.metadata[b"sid_version"] == b"v1"
    assert pq.read_table(path).to_pylist()[1] == {
        "item_id": "a",
        "sid": [0, 0, 9],
        "distances": [3.0, 2.0, 1.0],
        "error": 1.5,
    }
    table = codes.read_sids(path)
    assert table.item_ids.to_pylist() == ["b", "a"] and table.version == "v1"
    np.testing.assert_array_equal(table.sids, sids)
    np.testing.assert_array_equal(table.distances, distances)
    np.testing.assert_array_equal(table.errors, [0.5, 1.5])


def test_ragged_sids_name_the_row(tmp_path):
    path = tmp_path / "sids.parquet"
    table = pa.table(
        {
            "item_id": ["a", "b"],
            "sid": [[1, 2], [1]],
            "distances": [[0.0, 0.0], [0.0]],
            "error": [0.0, 0.0],
        }
    )
    codes.write_versioned(path, table, version="v1")
    with pytest.raises(InputError, match="row 2, column sid: 1 levels where row 1 has 2"):
        codes.read_sids(path)


def test_tables_of_two_versions_are_never_joined(tmp_path):
    paths = [tmp_path / name for name in ("a.parquet", "b.parquet", "c.parquet", "none.parquet")]
    table = pa.table({"x": [1]})
    for path, version in zip(paths, ("v1", "v1", "v2"), strict=False):
        codes.write_versioned(path, table, version=version)
    pq.write_table(table, paths[3])
    assert codes.check_same_version(*paths[:2]) == "v1"
    with pytest.raises(InputError, match=r"c\.parquet: sid_version v2 differs from v1"):
        codes.check_same_version(*paths[:3])
    with pytest.raises(InputError, match=r"none\.parquet: no sid_version"):
        codes.check_same_version(paths[0], paths[3])


def test_suffixes_part_an_over_full_bucket_in_the_order_of_the_catalogue():
    sids = np.array([[0, 1], [1, 0], [0, 1], [0, 1], [1, 0], [0, 1], [0, 1]])
    found = codes.suffixes(sids, sizes=(2, 2), cap=2)
    np.testing.assert_array_equal(found, [0, 0, 0, 1, 0, 1, 2])


def test_aligned_sids_follow_the_ids_and_mark_what_is_new(tmp_path):
    path = tmp_path / "sids.parquet"
    with codes.sid_writer(path, version="v1") as write:
        write(pa.array(["a", "b", "c"]), np.arange(6).reshape(3, 2), np.zeros((3, 2)), np.zeros(3))
    ids = pa.chunked_array([["c", "new"], ["a"]])
    found = codes.aligned_sids(path, item_ids=ids, version="v1")
    np.testing.assert_array_equal(found, [[4, 5], [-1, -1], [0, 1]])
    with pytest.raises(InputError, match="sid_version v1 is not v2"):
        codes.aligned_sids(path, item_ids=ids, version="v2")
