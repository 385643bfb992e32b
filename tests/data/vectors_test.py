from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.data import vectors
from dsirm_jax.data.title_types import TitleTypes
from dsirm_jax.io.errors import InputError


def write(path, ids, rows, column="item_id", type_=None):
    type_ = type_ or pa.list_(pa.float32())
    pq.write_table(pa.table({column: pa.array(ids), "vector": pa.array(rows, type_)}), path)
    return str(path)


@settings(deadline=None, max_examples=20)
@given(order=st.permutations(range(7)), shards=st.integers(1, 3), dim=st.integers(1, 4))
def test_rows_come_back_in_the_order_of_the_ids(tmp_path_factory, order, shards, dim):
    folder = tmp_path_factory.mktemp("vectors")
    stored = np.random.default_rng(0).normal(size=(7, dim)).astype(np.float32)
    ids = [f"id {number}" for number in range(7)]
    for shard in range(shards):
        path = folder / f"v-{shard}.parquet"
        vectors.write_vectors(path, ids[shard::shards], stored[shard::shards], id_column="query")
    read = vectors.read_vectors(
        folder / "v-*.parquet", ids=[ids[number] for number in order], id_column="query"
    )
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, stored[list(order)])


def test_more_rows_than_a_block(tmp_path):
    stored = np.arange(22, dtype=np.float32).reshape(11, 2)
    ids = [str(number) for number in range(11)]
    vectors.write_vectors(tmp_path / "v.parquet", ids, stored, id_column="item_id", rows=4)
    read = vectors.read_vectors(tmp_path / "v.parquet", ids=ids[::-1], id_column="item_id", rows=3)
    np.testing.assert_array_equal(read, stored[::-1])
    schema = pq.read_schema(tmp_path / "v.parquet")
    assert schema.field("vector").type == pa.list_(pa.float32())


@pytest.mark.parametrize(
    "type_",
    [pa.list_(pa.float64()), pa.list_(pa.float32(), 2), pa.large_list(pa.float16())],
    ids=["float64", "fixed size", "float16"],
)
def test_other_list_types_and_numeric_ids(tmp_path, type_):
    rows = [[np.float16(1), np.float16(2)], [np.float16(3), np.float16(-4)]]
    if type_ != pa.large_list(pa.float16()):
        rows = [[1.0, 2.0], [3.0, -4.0]]
    path = write(tmp_path / "v.parquet", [10, 20], rows, type_=type_)
    read = vectors.read_vectors(path, ids=["20", "10"], id_column="item_id")
    np.testing.assert_array_equal(read, [[3, -4], [1, 2]])


def test_an_uncleaned_query_is_found(tmp_path):
    path = write(tmp_path / "v.parquet", ["tom &amp;  jerry ", "other"], [[1], [2]], "query")
    read = vectors.read_vectors(path, ids=["tom & jerry"], id_column="query")
    np.testing.assert_array_equal(read, [[1]])


@pytest.mark.parametrize(
    ("ids", "rows", "message"),
    [
        pytest.param(
            ["a", "b"], [[1, 2], [3, float("nan")]], "row 2: column 'vector' has nan", id="nan"
        ),
        pytest.param(
            ["a", "b"], [[1, float("-inf")], [3, 4]], "row 1: column 'vector' has -inf", id="-inf"
        ),
        pytest.param(
            ["a", "b"],
            [[1, 1e39], [3, 4]],
            "row 1: column 'vector' has inf",
            id="too large for float32",
        ),
        pytest.param(["a", "b"], [[1, None], [3, 4]], "row 1: column 'vector' has nan", id="null"),
        pytest.param(
            ["a", "b"], [[1, 2], [3]], "row 2: column 'vector' has 1 numbers, not 2", id="short row"
        ),
        pytest.param(
            ["a", "b"], [[1, 2], None], "row 2: column 'vector' has 0 numbers, not 2", id="null row"
        ),
        pytest.param(["a", "b"], [[], []], "row 1: column 'vector' has 0 numbers", id="no columns"),
        pytest.param(
            ["a", "a"],
            [[1, 2], [3, 4]],
            "row 2: column 'vector' has a second one for 'a'",
            id="repeated id",
        ),
        pytest.param(
            ["a", None], [[1, 2], [3, 4]], "row 2: column 'item_id' is empty", id="empty id"
        ),
        pytest.param(
            ["a", "c"],
            [[1, 2], [3, 4]],
            "no vector for 1 of 2 item_ids, the first of them 'b'",
            id="missing vector",
        ),
        pytest.param([], [], "no data rows", id="no rows"),
    ],
)
def test_faults_are_named(tmp_path, ids, rows, message):
    ids = pa.array(ids, pa.string())
    path = write(tmp_path / "v.parquet", ids, rows, type_=pa.list_(pa.float64()))
    with pytest.raises(InputError, match=message) as error:
        vectors.read_vectors(path, ids=["a", "b"], id_column="item_id")
    assert path in str(error.value)
    assert "\n" not in str(error.value)


def test_width_may_not_change_between_shards(tmp_path):
    write(tmp_path / "v-0.parquet", ["a"], [[1, 2]])
    write(tmp_path / "v-1.parquet", ["b"], [[1, 2, 3]])
    with pytest.raises(InputError, match=r"v-1.parquet row 1: .* 3 numbers, not 2"):
        vectors.read_vectors(tmp_path / "v-*.parquet", ids=["a", "b"], id_column="item_id")


def test_missing_column_missing_file_and_not_parquet(tmp_path):
    path = write(tmp_path / "v.parquet", ["a"], [[1]])
    with pytest.raises(InputError, match="column 'query' is missing"):
        vectors.read_vectors(path, ids=["a"], id_column="query")
    with pytest.raises(InputError, match="no such file"):
        vectors.read_vectors(tmp_path / "w*.parquet", ids=["a"], id_column="item_id")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        vectors.read_vectors(tmp_path / "text.parquet", ids=["a"], id_column="item_id")
    pq.write_table(pa.table({"item_id": ["a"], "vector": ["1 2"]}), tmp_path / "s.parquet")
    with pytest.raises(InputError, match="has type string"):
        vectors.read_vectors(tmp_path / "s.parquet", ids=["a"], id_column="item_id")


@pytest.mark.parametrize("in_order", [True, False])
def test_vectors_in_a_temporary_file_are_the_same_and_leave_nothing(tmp_path, in_order):
    stored = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    ids = [f"i{number}" for number in range(9)]
    order = list(range(9)) if in_order else [4, 0, 8, 1, 2, 3, 5, 6, 7]
    (tmp_path / "given").mkdir()
    for part, rows in enumerate((slice(0, 5), slice(5, 9))):
        path = tmp_path / f"given/v-{part}.parquet"
        vectors.write_vectors(path, ids[rows], stored[rows], id_column="item_id")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    read = vectors.read_vectors(
        tmp_path / "given/v-*.parquet",
        ids=[ids[number] for number in order],
        id_column="item_id",
        scratch=scratch,
    )
    assert isinstance(read, np.memmap)
    np.testing.assert_array_equal(read, stored[order])
    assert not list(scratch.iterdir())


def test_copied_vectors_lie_in_shards_like_the_row_groups_of_the_table(tmp_path):
    stored = np.arange(10, dtype=np.float32).reshape(5, 2)
    vectors.write_vectors(tmp_path / "own.parquet", list("ecabd"), stored, id_column="item_id")
    table = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": list("abcde")}), table, row_group_size=2)
    pattern = tmp_path / "encode/items-*.parquet"
    vectors.copy_vectors(
        tmp_path / "own.parquet", table=table, id_column="item_id", pattern=pattern
    )
    read = [pq.read_table(file).to_pydict() for file in vectors.shards(pattern)]
    assert [part["item_id"] for part in read] == [["a", "b"], ["c", "d"], ["e"]]
    assert [row for part in read for row in part["vector"]] == stored[[2, 3, 1, 4, 0]].tolist()


def test_titles_stand_in_where_no_item_has_a_category(tmp_path):
    with_path, without, bare = (str(tmp_path / f"{name}.parquet") for name in "abc")
    paths = pa.array([["Shoes", "Boots"], None], pa.list_(pa.string()))
    pq.write_table(pa.table({"category": paths, "title": ["Red Boots", "Tote Bags"]}), with_path)
    pq.write_table(pa.table({"title": ["Garden Hoses, 5 m", "12 oz", None]}), without)
    pq.write_table(pa.table({"item_id": ["x"]}), bare)

    def read(*files, **how):
        return vectors.read_categories(files, **how).to_pylist()

    everything, english = (with_path, without, bare), TitleTypes(language="en")
    assert read(*everything, depth=2) == ["Shoes > Boots"] + [None] * 5
    assert read(*everything, depth=1, types=english) == ["Shoes"] + [None] * 5
    of_titles = ["boot", "bag", "hose", None, None, None]
    assert read(*everything, depth=0, types=english) == of_titles
    assert read(without, bare, depth=1, types=english) == [
        "hose",
        None,
        None,
        None,
    ]
    assert read(without, bare, depth=1, types=TitleTypes(language="ja")) == [None] * 4
    assert read(bare, depth=1) == [None]


@pytest.mark.parametrize("pattern", ["", " ", None, 3])
def test_a_pattern_is_a_text(pattern):
    with pytest.raises(InputError, match="^gin binding VectorFiles.pattern is .*; bind a text"):
        vectors.VectorFiles(pattern=pattern)


def write_column(path, column, ids=("a", "b", "c")):
    pq.write_table(pa.table({"item_id": list(ids), "vector": column}), path)
    return path


def read_abc(path):
    return vectors.read_vectors(path, ids=["a", "b", "c"], id_column="item_id").tolist()


ROWS = [[1.0, -2.0], [3.0, 0.0], [5.0, 6.5]]


def bits(rows):
    """bfloat16 of numbers that it holds exactly: the upper half of float32."""
    return (np.array(rows, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def of_two_bytes(rows, name):
    raw = bits(rows).astype("<u2").tobytes()
    values = pa.Array.from_buffers(pa.binary(2), 6, [None, pa.py_buffer(raw)])
    field = pa.field("item", pa.binary(2), metadata={"ARROW:extension:name": name})
    return pa.FixedSizeListArray.from_arrays(values, type=pa.list_(field, 2))


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(pa.array(ROWS, pa.list_(pa.float16())), id="float16"),
        pytest.param(pa.array(ROWS, pa.list_(pa.float16(), 2)), id="float16 of fixed size"),
        pytest.param(pa.array(ROWS, pa.large_list(pa.float64())), id="large float64"),
        pytest.param(pa.array(ROWS, pa.list_view(pa.float32())), id="list view"),
        pytest.param(pa.array(bits(ROWS).tolist(), pa.list_(pa.uint16())), id="bfloat16 bits"),
        pytest.param(
            pa.array(bits(ROWS).astype(np.int16).tolist(), pa.list_(pa.int16(), 2)),
            id="signed bfloat16 bits",
        ),
        pytest.param(of_two_bytes(ROWS, "lance.bfloat16"), id="bfloat16 extension"),
        pytest.param(
            pa.ExtensionArray.from_storage(
                pa.fixed_shape_tensor(pa.float32(), (1, 2)),
                pa.array(ROWS, pa.list_(pa.float32(), 2)),
            ),
            id="tensor",
        ),
        pytest.param(pa.array([["1", "-2"], ["3", "0"], ["5", "6.5"]]), id="texts"),
    ],
)
def test_numbers_of_any_kind_are_read(tmp_path, column):
    assert read_abc(write_column(tmp_path / "v.parquet", column)) == ROWS


@pytest.mark.parametrize("type_", [pa.int16(), pa.uint16(), pa.int8()], ids=str)
def test_whole_numbers_are_numbers_and_no_bits(tmp_path, type_):
    rows = [[0, 1], [100, 3], [7, 127]]
    column = pa.array(rows, pa.list_(type_))
    assert read_abc(write_column(tmp_path / "v.parquet", column)) == rows


NO_LISTS = {
    "map": pa.array([[("x", 1.0)]] * 3, pa.map_(pa.string(), pa.float32())),
    "struct": pa.array([{"x": 1.0}] * 3),
    "bytes": pa.array([b"12345678"] * 3),
    "number": pa.array([1.0, 2.0, 3.0]),
    "lists of lists": pa.array([[[1.0]]] * 3),
    "lists of dates": pa.array([[1]] * 3, pa.list_(pa.date32())),
    "lists of bytes": pa.array([[b"12"]] * 3, pa.list_(pa.binary(2))),
    "tensors": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), (2, 2)),
        pa.array([[1.0] * 4] * 3, pa.list_(pa.float32(), 4)),
    ),
}


@pytest.mark.parametrize("kind", NO_LISTS)
def test_a_column_that_is_no_list_of_numbers_is_named(tmp_path, kind):
    path = write_column(tmp_path / "v.parquet", NO_LISTS[kind])
    with pytest.raises(InputError, match=r"v.parquet: column 'vector' has .*; write ") as error:
        read_abc(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        pytest.param(
            pa.array([ROWS[0], None, ROWS[2]], pa.list_(pa.float32(), 2)),
            "row 2: column 'vector' has 0 numbers",
            id="null of fixed size",
        ),
        pytest.param(pa.array([["1"], ["x"], ["3"]]), "row 2: .* has 'x' among", id="word"),
        pytest.param(
            pa.array([[1e20], [1.0], [1.0]], pa.list_(pa.float32())),
            "row 1: .* has the length 1e[+]20, whose square float32 does not hold",
            id="square overflows",
        ),
        pytest.param(
            pa.array([[1.0], [1.0], [1e-30]], pa.list_(pa.float64())),
            "row 3: .* has the length 1e-30, whose square",
            id="square vanishes",
        ),
    ],
)
def test_a_row_at_fault_is_named(tmp_path, column, message):
    path = write_column(tmp_path / "v.parquet", column)
    with pytest.raises(InputError, match=f"v.parquet {message}.*fix or leave out the row"):
        read_abc(path)


def test_a_null_of_fixed_size_is_found_in_a_later_block(tmp_path):
    rows = [ROWS[0]] * 25
    rows[17] = None
    ids = [str(row) for row in range(25)]
    column = pa.array(rows, pa.list_(pa.float32(), 2))
    path = write_column(tmp_path / "v.parquet", column, ids)
    with pytest.raises(InputError, match="v.parquet row 18: column 'vector' has 0 numbers"):
        vectors.read_vectors(path, ids=ids, id_column="item_id", rows=4)


def test_float64_that_float32_cannot_tell_apart_is_refused(tmp_path):
    near = np.random.default_rng(0).normal(size=(80, 3))
    ids = [str(row) for row in range(80)]
    for offset, right in ((1e4, True), (1e8, False)):
        path = write(
            tmp_path / "v.parquet", ids, (near + offset).tolist(), type_=pa.list_(pa.float64())
        )
        if right:
            vectors.read_vectors(path, ids=ids, id_column="item_id")
        else:
            with pytest.raises(InputError, match="differ by less than float32 .*; subtract"):
                vectors.read_vectors(path, ids=ids, id_column="item_id")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        pytest.param(pa.array([1.0, 2.0, 1e6]), ["1", "2", "1000000"], id="floats"),
        pytest.param(pa.array([b"a", b"b", b"\xc3\xa9"]), ["a", "b", "é"], id="bytes"),
        pytest.param(pa.array([1, 2, 10**15]), ["1", "2", "1000000000000000"], id="whole numbers"),
        pytest.param(pa.array(list("xyx")).dictionary_encode(), None, id="twice"),
        pytest.param(pa.array([" a", "a ", "b"]), None, id="twice but for blanks"),
        pytest.param(pa.array([1.5, 2.0, 3.0]), None, id="no whole number"),
        pytest.param(pa.array([1.0, float("nan"), 3.0]), None, id="nan"),
        pytest.param(pa.array(["a", " ", "b"]), None, id="blank"),
        pytest.param(pa.array([True, False, True]), None, id="booleans"),
        pytest.param(pa.array([b"a", b"\xff", b"c"]), None, id="no UTF-8"),
        pytest.param(pa.array([["a"], ["b"], ["c"]]), None, id="lists"),
        pytest.param(pa.array([], pa.string()), None, id="none"),
    ],
)
def test_ids_are_texts_each_once(tmp_path, ids, expected):
    rows = [[1.0]] * len(ids)
    path = write(tmp_path / "v.parquet", ids, rows)
    if expected:
        assert vectors.read_ids([path], id_column="item_id").to_pylist() == expected
        return
    with pytest.raises(InputError, match=r"v.parquet( row \d)?: ") as error:
        vectors.read_ids([path], id_column="item_id")
    assert "\n" not in str(error.value)


def test_an_id_in_two_files_and_a_column_twice_are_named(tmp_path):
    one, two = (write(tmp_path / f"v-{n}.parquet", ["a"], [[1.0]]) for n in range(2))
    with pytest.raises(InputError, match="v-1.parquet row 1: column 'item_id' has 'a' a second"):
        vectors.read_ids([one, two], id_column="item_id")
    table = pa.table(
        [pa.array(["a"]), pa.array([[1.0]]), pa.array([[1.0]])], ["item_id", *["vector"] * 2]
    )
    pq.write_table(table, one)
    with pytest.raises(InputError, match="column 'vector' is there more than once"):
        vectors.read_vectors(one, ids=["a"], id_column="item_id")


def test_a_file_that_breaks_off_is_named(tmp_path):
    path = tmp_path / "v.parquet"
    vectors.write_vectors(path, ["a"], np.ones((1, 400), "f4"), id_column="item_id")
    contents = bytearray(path.read_bytes())
    contents[4:200] = bytes(196)
    path.write_bytes(contents)
    with pytest.raises(InputError, match="v.parquet: not a readable Parquet file"):
        vectors.read_vectors(path, ids=["a"], id_column="item_id")


def test_an_id_that_is_not_there_is_shown_beside_one_that_is(tmp_path):
    path = write(tmp_path / "v.parquet", [2], [[1.0]])
    with pytest.raises(InputError, match=r"the first of them '00002'; add them \(it has '2'"):
        vectors.read_vectors(path, ids=["00002"], id_column="item_id")


def test_vectors_of_zeros_are_counted(tmp_path, caplog):
    own = write(tmp_path / "own.parquet", list("abc"), [[0, 0], [1, 2], [0, 0]])
    pq.write_table(pa.table({"item_id": list("abc")}), tmp_path / "items.parquet")
    vectors.copy_vectors(
        own,
        table=tmp_path / "items.parquet",
        id_column="item_id",
        pattern=tmp_path / "encode/items-*.parquet",
    )
    assert "the vectors of 2 of 3 item_ids are all zeros" in caplog.text


def test_categories_may_be_one_text(tmp_path):
    path = str(tmp_path / "v.parquet")
    texts = ["Shoes > Boots", "", None, "Home"]
    for column in (pa.array(texts), pa.array(texts).dictionary_encode()):
        pq.write_table(pa.table({"category": column}), path)
        read = vectors.read_categories([path], depth=1).to_pylist()
        assert [name or None for name in read] == ["Shoes", None, None, "Home"]
    pq.write_table(pa.table({"category": [1, 2]}), path)
    with pytest.raises(
        InputError, match="v.parquet: column 'category' has type int64; write lists"
    ):
        vectors.read_categories([path], depth=1)
