"""However a table is written, its rows come out as they are, or a line says what is in doubt."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.ingestion.dialect import Dialect
from dsirm_jax.ingestion.readers.tables import Tables
from dsirm_jax.ingestion.validation.missing import MISSING
from dsirm_jax.ingestion.validation.oddities import Oddities, oddity_findings
from dsirm_jax.ingestion.validation.validate import checked_items
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import chunks

COLUMNS = ("item_id", "title", "brand", "description")
DELIMITERS = [",", "\t", ";", "|"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]
WORDS = ["kettle", "Café", '12"', '"Deluxe"', '"', '""', "a\\b", "\\", '\\"', "5,5", "a;b", "x|y"]
ODD = ["ta\tb", "two\nlines", "two\r\nlines", "a\0b", "\u2028", "\x85", "\x0b", " ", "日本", "’"]
CELL = st.lists(st.sampled_from(WORDS + ODD), max_size=3).map(" ".join) | st.sampled_from(
    [*MISSING, "", " NULL ", "Nullable", "none"]
)


def written(table, delimiter, quoting, end):
    """Writes a table by the definition of each quoting, with no library's help."""
    quote = {
        "none": lambda cell: cell,
        "doubled": lambda cell: '"' + cell.replace('"', '""') + '"',
        "backslash": lambda cell: '"' + re.sub(r'(["\\])', r"\\\1", cell) + '"',
    }[quoting]

    def shown(cell):
        special = [delimiter, "\n", "\r", *(['"'] if quoting == "doubled" else ['"', "\\"])]
        return quote(cell) if any(mark in cell for mark in special) else cell

    return "".join(delimiter.join(map(shown, row)) + end for row in table)


def expected(row):
    """What `prepare` makes of a row: spaces folded, invisible characters and markers gone."""
    texts = [" ".join(re.sub("[\0\x84]", "", text).split()) for text in row[1:]]
    title, *others = texts
    return [title, *(None if text in {"", *MISSING} else text for text in others)]


@st.composite
def tables(draw, least=0):
    """Yields rows, and how they are written, such that the writing can hold them."""
    delimiter, encoding = draw(st.sampled_from(DELIMITERS)), draw(st.sampled_from(ENCODINGS))
    quoting = draw(st.sampled_from(["none", "doubled", "backslash"]))

    def fits(cell):
        unquoted = quoting != "none" or not re.search(rf"[\r\n{re.escape(delimiter)}]", cell)
        return unquoted and (
            encoding != "cp1252" or cell.encode(encoding, "ignore").decode(encoding) == cell
        )

    cells = st.lists(CELL.filter(fits), min_size=3, max_size=3)
    rows = draw(st.lists(cells, min_size=1, max_size=8))
    plain = [["kettle", "Arvo", "a red one"]] * least
    rows = [[f"{number:03d}", *row] for number, row in enumerate(plain + rows, 1)]
    # A title that is empty would be rejected, by rights.
    rows = [[key, f"t {title}", *others] for key, title, *others in rows]
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return rows, delimiter, quoting, encoding, end


def items(path, **dialect):
    source = Tables(
        items=str(path),
        judgements=str(path),
        judgement_columns={"query": "item_id", "label": "title"},
        items_dialect=Dialect(**dialect),
        judgements_dialect=Dialect(**dialect),
    ).read()
    kept, rejected, oddities = [], [], Oddities()
    for chunk in chunks(source.items):
        passed, failed = checked_items(chunk, extras=source.extras, oddities=oddities)
        kept += passed.to_pylist()
        rejected += failed.to_pylist()
    found = oddity_findings(oddities, table="items", rows=len(kept), columns={})
    return kept, rejected, [*source.findings, *(one for one in found if "quote" in one.text)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dialects")


@settings(deadline=None, max_examples=150)
@given(table=tables())
def test_what_is_bound_is_read_to_the_letter(folder, table):
    rows, delimiter, quoting, encoding, end = table
    path = folder / "items.csv"
    path.write_bytes(written([COLUMNS, *rows], delimiter, quoting, end).encode(encoding))
    kept, rejected, _ = items(path, delimiter=delimiter, quoting=quoting, encoding=encoding)
    assert rejected == []
    found = [[row[name] for name in COLUMNS] for row in kept]
    assert found == [[row[0], *expected(row)] for row in rows]
    assert [row["_row"] for row in kept] == list(range(1, len(rows) + 1))


@settings(deadline=None, max_examples=250)
@given(table=tables(least=12))
def test_what_is_sniffed_is_right_or_said(folder, table):
    rows, delimiter, quoting, encoding, end = table
    path = folder / ("items.tsv" if delimiter == "\t" else "items.csv")
    content = written([COLUMNS, *rows], delimiter, quoting, end)
    path.write_bytes(content.encode(encoding))
    try:
        kept, rejected, findings = items(path)
    except InputError as error:
        assert str(path) in str(error)
        assert "quot" in str(error)
        return
    found = {row["_row"]: [row[name] for name in COLUMNS] for row in kept}
    right = {place: [row[0], *expected(row)] for place, row in enumerate(rows, 1)}
    wrong = [place for place in right if found.get(place) != right[place]]
    # A value that is in quotes from end to end may as well have been written without.
    if quoting == "none" and any(
        re.fullmatch('"([^"]|"")*"', cell) for row in rows for cell in row
    ):
        return
    numbers = sorted([row["_row"] for row in kept] + [row["row"] for row in rejected])
    assert numbers == list(range(1, len(numbers) + 1))
    if wrong:
        assert findings or rejected
        # None is lost: what stands in the file stands in the rows kept or rejected.
        assert len(numbers) >= len(rows) or any("rows" in finding.text for finding in findings)
    # The default quoting is read as it was written.
    if quoting == "doubled" and encoding != "cp1252":
        assert not wrong


@settings(deadline=None, max_examples=100)
@given(
    data=st.data(),
    cut=st.booleans(),
    suffix=st.sampled_from([".csv", ".tsv"]),
)
def test_any_text_at_all_is_read_or_refused(folder, data, cut, suffix):
    pieces = st.sampled_from([*WORDS, *ODD, *DELIMITERS, "\n", "\r", "\r\n", '"\n', ',"', '",'])
    text = "item_id,title\n" + "".join(data.draw(st.lists(pieces, max_size=30)))
    content = text.encode(data.draw(st.sampled_from([e for e in ENCODINGS if e != "cp1252"])))
    path = folder / f"any{suffix}"
    path.write_bytes(content[: len(content) - cut])
    try:
        kept, rejected, _ = items(path)
    except InputError as error:
        assert "any" in str(error)
        assert "\n" not in str(error)
        return
    numbers = sorted([row["_row"] for row in kept] + [row["row"] for row in rejected])
    assert numbers == list(range(1, len(numbers) + 1))
