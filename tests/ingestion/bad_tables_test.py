"""Whatever a table holds, every row is kept or rejected, or an InputError says what is wrong."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.readers.tables import Tables
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import items_of, judgements_of

ITEM_COLUMNS = ("item_id", "title", "description", "brand", "category", "price")
JUDGEMENT_COLUMNS = ("query", "item_id", "label", "clicks", "weight", "split", "query_frequency")
FAIR_WORDS = ("", " ", "0", "1", "-1", "3.0", "1e400", "nan", "E", "train", "shoe > red", "NULL")
ODD_WORDS = (
    "a\0b",
    "\x1b[31m",
    "שלום עולם",
    "\u202eabc\u202c",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "\ufeffx",
    "e\u0301" * 3,
    "<b>&nbsp;</b>",
    'quo"te',
    "two\nlines",
    "car\rriage",
    "ta\tb",
    "com,ma",
    "\\",
    "9" * 400,
    "x" * 1_000_000,
)
TEXT = st.sampled_from(FAIR_WORDS + ODD_WORDS) | st.text(max_size=8)
NO_UTF8 = st.sampled_from([b"\xff", b"caf\xe9", b"\xed\xa0\x80", b"\xf0\x9f\x91", b"\xc0\x80"])
BYTES = TEXT.map(str.encode) | NO_UTF8
TABLES = st.sampled_from([("items", ITEM_COLUMNS), ("judgements", JUDGEMENT_COLUMNS)])


def outcome(folder, name, suffix, content):
    """Returns the numbers of the rows that come out of a table, or None for an InputError."""
    path = folder / f"{name}{suffix}"
    path.write_bytes(content)
    fair = {"items": folder / "fair_items.csv", "judgements": folder / "fair_judgements.csv"}
    fair["items"].write_text("item_id,title,price\n1,shoe,2\n")
    fair["judgements"].write_text("query,item_id,label\nshoe,1,E\n")
    files = {table: str(file) for table, file in (fair | {name: path}).items()}
    try:
        source = Tables(**files, extra_columns={"price": "float64"}).read()
        kept, rejected = items_of(source) if name == "items" else judgements_of(source, "E")
    except InputError as error:
        assert name in str(error)
        assert "\n" not in str(error)
        return None
    for row in rejected:
        assert row["reason"]
    return sorted([row["_row"] for row in kept] + [row["row"] for row in rejected])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bad")


def quoted(cell):
    return b'"' + cell.replace(b'"', b'""') + b'"'


@settings(deadline=None, max_examples=60)
@given(
    table=TABLES,
    rows=st.lists(st.lists(BYTES, min_size=1, max_size=9), max_size=12),
    tabs=st.booleans(),
    packed=st.booleans(),
    mark=st.booleans(),
    end=st.sampled_from([b"\n", b"\r\n"]),
    blank=st.booleans(),
)
def test_no_row_of_csv_is_lost(folder, table, rows, tabs, packed, mark, end, blank):
    name, columns = table
    width = len(columns)
    # Half of the rows have the right width.
    rows = [(row * width)[:width] if place % 2 else row for place, row in enumerate(rows)]
    cells = [[column.encode() for column in columns], *rows]
    lines = [(b"\t" if tabs else b",").join(map(quoted, row)) for row in cells]
    if blank:
        lines = [line for pair in lines for line in (pair, b"")]
    content = (b"\xef\xbb\xbf" if mark else b"") + end.join(lines) + end
    suffix = (".tsv" if tabs else ".csv") + (".gz" if packed else "")
    content = gzip.compress(content, 1) if packed else content
    assert outcome(folder, name, suffix, content) == list(range(1, len(rows) + 1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)
NOT_JSON = st.sampled_from(
    [b"{", b"nul", b'{"title": NaN', b"\xff", b'{"title": "\xff"}', b"\0", b"[" * 5000]
    + [b'{"title": ' + b"9" * 5000 + b"}", b'{"title": "a", "title": "b"}', b'"text"', b"1 2"]
    + [b'{"title": ' + b"[" * depth + b"]" * depth + b"}" for depth in (400, 900, 990, 1000)]
)


@settings(deadline=None, max_examples=60)
@given(table=TABLES, data=st.data(), packed=st.booleans(), mark=st.booleans())
def test_no_row_of_jsonl_is_lost(folder, table, data, packed, mark):
    name, columns = table
    records = st.fixed_dictionaries({}, optional={column: JSON for column in columns})
    whole = {column: "1" for column in columns}
    others = st.lists(NOT_JSON | records.map(json.dumps).map(str.encode), max_size=8)
    lines = [json.dumps(whole).encode(), *data.draw(others)]
    content = (b"\xef\xbb\xbf" if mark else b"") + b"\n".join(lines)
    suffix = ".jsonl" + (".gz" if packed else "")
    content = gzip.compress(content, 1) if packed else content
    assert outcome(folder, name, suffix, content) == list(range(1, len(lines) + 1))


WHOLE = st.integers(-(2**63), 2**63 - 1)
DAY = st.dates(datetime.date(1700, 1, 1), datetime.date(2200, 1, 1))
COLUMNS = st.sampled_from(
    [
        (pa.string(), TEXT),
        (pa.large_string(), TEXT),
        (pa.string_view(), TEXT),
        (pa.binary(), BYTES),
        (pa.large_binary(), BYTES),
        (pa.binary(2), st.binary(min_size=2, max_size=2)),
        (pa.int64(), WHOLE),
        (pa.int8(), st.integers(-128, 127)),
        (pa.uint64(), st.integers(0, 2**64 - 1)),
        (pa.float64(), st.floats()),
        (pa.float32(), st.floats(width=32)),
        (pa.bool_(), st.booleans()),
        (pa.date32(), DAY),
        (pa.timestamp("us", "UTC"), DAY.map(lambda day: datetime.datetime(*day.timetuple()[:6]))),
        (pa.decimal128(38, 3), st.integers(-(10**9), 10**9).map(decimal.Decimal)),
        (pa.null(), st.none()),
        (pa.list_(pa.string()), st.lists(TEXT | st.none(), max_size=3)),
        (pa.list_(pa.binary()), st.lists(BYTES, max_size=3)),
        (pa.list_(pa.int64()), st.lists(WHOLE, max_size=3)),
        (pa.list_(pa.list_(pa.string())), st.lists(st.lists(TEXT, max_size=2), max_size=2)),
        (pa.map_(pa.string(), pa.int64()), st.just([("a", 1)])),
        (pa.struct({"a": pa.string()}), TEXT.map(lambda text: {"a": text})),
        (pa.dictionary(pa.int32(), pa.string()), TEXT),
        (pa.dictionary(pa.int8(), pa.int64()), st.integers(0, 9)),
    ]
)


@st.composite
def arrow_tables(draw, columns):
    """Tables with some or all of the columns, in any type, where text may be no UTF-8."""
    rows = draw(st.integers(0, 12))
    table = {}
    for name in columns:
        type_, values = draw(COLUMNS)
        if draw(st.booleans()):
            type_, values = pa.string(), TEXT
        cells = draw(st.lists(values | st.none(), min_size=rows, max_size=rows))
        table[name] = pa.array(cells, type_)
        if type_ == pa.string() and draw(st.booleans()):
            cells = draw(st.lists(BYTES | st.none(), min_size=rows, max_size=rows))
            table[name] = pa.array(cells, pa.binary()).view(pa.string())
    return pa.table(table)


@settings(deadline=None, max_examples=120)
@given(table=TABLES, data=st.data(), group=st.sampled_from([1, 5, 100]))
def test_no_row_of_parquet_is_lost(folder, table, data, group):
    name, columns = table
    rows = data.draw(arrow_tables(columns))
    path = folder / "written.parquet"
    pq.write_table(rows, path, row_group_size=group)
    numbers = outcome(folder, name, ".parquet", path.read_bytes())
    assert numbers in (None, list(range(1, rows.num_rows + 1)))
    textual = (pa.types.is_string, pa.types.is_binary)
    if all(any(is_of(type_) for is_of in textual) for type_ in rows.schema.types):
        assert numbers is not None


@settings(deadline=None, max_examples=120)
@given(
    suffix=st.sampled_from([".csv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet", ".parquet.gz"]),
    data=st.data(),
)
def test_damaged_files_are_read_or_named(folder, suffix, data):
    rows = [{"item_id": str(row), "title": f"title {row}", "price": row} for row in range(40)]
    path = folder / "written.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    contents = {
        ".csv": b"item_id,title,price\n" + b"".join(b"%d,title,1\n" % row for row in range(40)),
        ".tsv": b"item_id\ttitle\tprice\n" + b"".join(b"%d\tt\t1\n" % row for row in range(40)),
        ".jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        ".parquet": path.read_bytes(),
    }
    content = contents[suffix.removesuffix(".gz")]
    content = bytearray(gzip.compress(content, 1) if suffix.endswith(".gz") else content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    keep = data.draw(st.just(len(content)) | st.integers(1, len(content)))
    outcome(folder, "items", suffix, bytes(content[:keep]))


PACKED = {
    "gzip": (gzip.compress(b"item_id,title\ni1,Red shoe\n"), "packed by gzip: give its name a .gz"),
    "parquet": (b"PAR1....PAR1", "a Parquet file: name it .parquet"),
    "xlsx": (b"PK\x03\x04....", "export it as CSV"),
    "xls": (b"\xd0\xcf\x11\xe0....", "export it as CSV"),
    "zstd": (b"\x28\xb5\x2f\xfd....", "packed by zstd"),
    "xz": (b"\xfd7zXZ....", "packed by xz"),
    "bzip2": (b"BZh9....", "packed by bzip2"),
}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize(("contents", "mend"), PACKED.values(), ids=[*PACKED])
def test_a_file_that_is_no_text_is_named_with_what_it_is(tmp_path, contents, mend, suffix):
    file = tmp_path / f"items.{suffix}"
    file.write_bytes(contents)
    with pytest.raises(InputError) as error:
        formats.header(str(file))
    assert str(error.value).startswith(f"{file}: no text, but ") and mend in str(error.value)


def test_a_sheet_is_to_be_exported_as_csv(tmp_path):
    (tmp_path / "items.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match=r"items\.xlsx: a sheet; export it as CSV"):
        formats.header(str(tmp_path / "items.xlsx"))


@pytest.mark.parametrize(
    "above", ["# exported 2026-01-01\n", "Products\n\n"], ids=["comment", "title"]
)
def test_lines_above_the_names_of_columns_are_said(tmp_path, above):
    file = tmp_path / "items.csv"
    file.write_text(f"{above}item_id,title\ni1,Red shoe\n")
    source = Tables(items=str(file), judgements=str(file))
    line = above.count("\n") + 1
    with pytest.raises(InputError, match=f"named in line {line}: leave out the lines above it"):
        source.read()
