"""Files as shops and spreadsheets write them: read, and said how, or refused with both readings."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest

from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.mapping import item_mapping, split_categories
from dsirm_jax.ingestion.dialect import Dialect
from dsirm_jax.ingestion.readers.tables import Tables
from dsirm_jax.ingestion.validation.oddities import Oddities, oddity_findings
from dsirm_jax.ingestion.validation.validate import checked_items
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import chunks, items_of

HEADER = "item_id,title,brand,description\n"
PLAIN = "".join(f"{row},kettle {row},Arvo,a red one\n" for row in range(1, 31))
QUOTED = PLAIN.replace("a red one", '"a red, round one"')


def items(tmp_path, content, name="items.csv", **dialect):
    """Returns (title, description) by row, the rows that are rejected, and the findings' texts."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "judgements.csv").write_text("query,item_id,label\nq,1,1\n")
    source = Tables(
        items=str(path),
        judgements=str(tmp_path / "judgements.csv"),
        items_dialect=Dialect(**dialect),
    ).read()
    kept, rejected = items_of(source)
    rows = {row["_row"]: (row["title"], row["description"]) for row in kept}
    said = [finding.text for finding in source.findings if "columns read" not in finding.text]
    return rows, [row["row"] for row in rejected], said


def tabs(text):
    return text.replace(",", "\t")


def semicolons(text):
    return text.replace(",", ";")


KETTLES = {row: (f"kettle {row}", "a red one") for row in range(1, 31)}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        pytest.param("i.csv", HEADER + PLAIN, None, id="plain"),
        pytest.param("i.csv", "\ufeff" + HEADER + PLAIN, None, id="byte-order mark"),
        pytest.param("i.csv", (HEADER + PLAIN)[:-1], None, id="no end of the last line"),
        pytest.param("i.csv", (HEADER + PLAIN).replace("\n", "\r\n"), None, id="crlf"),
        pytest.param("i.csv", (HEADER + PLAIN).replace("\n", "\r"), None, id="cr"),
        pytest.param("i.csv", (HEADER + PLAIN).replace("\n", "\r\r\n"), None, id="cr cr lf"),
        pytest.param("i.csv", "\n" + HEADER + "  \n" + PLAIN + "\n \n", None, id="blank lines"),
        pytest.param("i.csv", semicolons(HEADER + PLAIN), "separated by ';'", id="semicolons"),
        pytest.param("i.csv", tabs(HEADER + PLAIN), "separated by tabs", id="tabs in csv"),
        pytest.param("i.tsv", HEADER + PLAIN, "separated by ','", id="commas in tsv"),
        pytest.param(
            "i.csv", "sep=;\r\n" + semicolons(HEADER + PLAIN), "separated by ';'", id="sep line"
        ),
        pytest.param(
            "i.csv",
            '\ufeff"sep=;"\n' + semicolons(HEADER + PLAIN),
            "separated",
            id="quoted sep line",
        ),
        pytest.param("i.csv", (HEADER + PLAIN).replace(",", "|"), r"separated by '\|'", id="bars"),
        pytest.param(
            "i.csv", (HEADER + PLAIN).replace(",", ", "), "spaces around names", id="spaces"
        ),
        pytest.param(
            "i.csv",
            HEADER + PLAIN.replace("\n", ",\n"),
            "a delimiter ends each row",
            id="open ends",
        ),
        pytest.param("i.csv", (HEADER + PLAIN).encode("utf-16"), "encoding is utf-16", id="utf-16"),
        pytest.param(
            "i.csv", (HEADER + PLAIN).encode("utf-16-be"), "encoding is utf-16-be", id="no mark"
        ),
    ],
)
def test_plain_values_however_they_are_parted(tmp_path, name, content, said):
    rows, rejected, findings = items(tmp_path, content, name)
    assert (rows, rejected) == (KETTLES, [])
    assert bool(findings) == bool(said)
    if said:
        assert re.search(said, findings[-1])
        assert ("items/dialect.Dialect" in findings[-1]) == ("separated" in said or "enc" in said)


@pytest.mark.parametrize(
    ("name", "head", "rows", "right", "said"),
    [
        pytest.param(
            "i.tsv",
            tabs(HEADER + PLAIN),
            '31\tkettle\tArvo\t"Quoted, a start\n32\tkettle\tArvo\tb\n33\tkettle\tArvo\t"again\n',
            {31: ("kettle", '"Quoted, a start'), 32: ("kettle", "b"), 33: ("kettle", '"again')},
            "quotes are text: .* without quoting, 33 rows",
            id="quote at the start of the last column",
        ),
        pytest.param(
            "i.tsv",
            tabs(HEADER + PLAIN),
            '31\t"half an inch\tArvo\ta\n32\tkettle\tArvo\tb 12"\n',
            {31: ('"half an inch', "a"), 32: ("kettle", 'b 12"')},
            "with quotes around values, 31 rows, 1 of them .* without quoting, 32 rows",
            id="quotes that close two rows on",
        ),
        pytest.param(
            "i.tsv",
            tabs(HEADER + PLAIN),
            '31\t"Deluxe" kettle\tArvo\ta\n32\t"red kettle" 12"\tArvo\tb\n',
            {31: ('"Deluxe" kettle', "a"), 32: ('"red kettle" 12"', "b")},
            "quotes are text",
            id="balanced quotes with text behind",
        ),
        pytest.param(
            "i.csv",
            HEADER + QUOTED,
            '31,"Deluxe" kettle,Arvo,"a, b"\n32,"Half inch,Arvo,"c, d"\n33,12" pan,Arvo,e\n',
            {31: ('"Deluxe" kettle', "a, b"), 32: ('"Half inch', "c, d"), 33: ('12" pan', "e")},
            None,
            id="stray quotes in a file that quotes",
        ),
        pytest.param(
            "i.csv",
            HEADER + QUOTED,
            '31,"a ""red"" kettle",Arvo,"line one\nline two, with a comma\n\nthree"\n32,b,,c\n',
            {
                31: ('a "red" kettle', "line one line two, with a comma three"),
                32: ("b", "c"),
            },
            None,
            id="doubled quotes and several lines",
        ),
        pytest.param(
            "i.csv",
            HEADER + PLAIN,
            '31,a,Arvo,"line one\nline two, with\n\nthree"\n32,b,Arvo,x\n',
            {31: ("a", "line one line two, with three"), 32: ("b", "x")},
            None,
            id="one value of several lines",
        ),
        pytest.param(
            "i.csv",
            HEADER + QUOTED,
            '31,"kettle 12\\" wide",Arvo,"The \\"Classic\\", boxed"\n32,C:\\temp,\\N,"C:\\\\"\n',
            {31: ('kettle 12" wide', 'The "Classic", boxed'), 32: ("C:\\temp", "C:\\")},
            "a backslash stands before quotes",
            id="backslashes before quotes",
        ),
        pytest.param(
            "i.csv",
            (HEADER + QUOTED).replace(",", ", ").replace(", round", ",round"),
            '31, "a, ""b""", "Arvo", "c"\n',
            {31: ('a, "b"', "c")},
            None,
            id="spaces before quotes",
        ),
        pytest.param(
            "i.tsv",
            tabs(HEADER + PLAIN),
            "31\ta\rb\tArvo\tc\rd\n32\te\tArvo\tf\u2028g\x85h\x0b\0i\n",
            {31: ("a b", "c d"), 32: ("e", "f g h i")},
            "carriage returns within lines are text",
            id="controls that are no ends of lines",
        ),
    ],
)
def test_quotes_are_told_by_counting(tmp_path, name, head, rows, right, said):
    found, rejected, findings = items(tmp_path, head + rows, name)
    assert {row: found.get(row) for row in right} == right
    assert (len(found), rejected) == (30 + len(right), [])
    assert bool(findings) == bool(said)
    if said:
        assert re.search(said, findings[-1])


def test_quotes_that_do_not_close_are_counted_however_far_down(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text(HEADER + 9 * QUOTED + '1,"Deluxe" pan,Arvo,a\n' + QUOTED + '2,"a \\" b",,c\n')
    mapping = item_mapping({}, [], binding="items")
    parts = formats.parts([str(path)], mapping=mapping, limits=formats.Limits(sample=999, rows=7))
    oddities = Oddities()
    for chunk in chunks(split_categories(parts, separator=">")):
        checked_items(chunk, extras=pa.schema([]), oddities=oddities)
    (finding,) = oddity_findings(oddities, table="items", rows=302, columns={})
    assert finding.is_fault
    assert "does not end it in 2 of 302 rows (such as '1,\"Deluxe\" pan,Arvo,a')" in finding.text


def test_two_readings_are_an_error_until_one_is_bound(tmp_path):
    content = tabs(HEADER + PLAIN) + '31\ta\tArvo\t"x\n32\tb\tArvo\ty\n33\tc\tArvo\tz 12"\n'
    both = "quotes around values, 31 rows; without quoting, 33 rows; bind items/dialect.Dialect.q"
    with pytest.raises(InputError, match=both):
        items(tmp_path, content, "items.tsv")
    rows, _, _ = items(tmp_path, content, "items.tsv", quoting="none")
    assert [rows[row] for row in (31, 32, 33)] == [("a", '"x'), ("b", "y"), ("c", 'z 12"')]
    rows, _, _ = items(tmp_path, content, "items.tsv", quoting="doubled")
    assert rows[31] == ("a", "x 32 b Arvo y 33 c Arvo z 12")
    assert len(rows) == 31


def test_two_readings_behind_the_head_are_an_error_too(tmp_path):
    plain = "".join(f"{row},kettle {row},Arvo,{'x' * 100}\n" for row in range(12_000))
    content = HEADER + plain + 'a,a,Arvo,"x\nb,b,Arvo,y"\n'
    with pytest.raises(InputError, match=r"after row 12000: .* 2 lines,.*quoting = 'none'"):
        items(tmp_path, content)
    rows, _, _ = items(tmp_path, content, quoting="none")
    assert len(rows) == 12_002


def test_a_file_that_is_cut_in_quotes_is_refused(tmp_path):
    with pytest.raises(InputError, match="after row 30: the file ends within quotes"):
        items(tmp_path, HEADER + QUOTED + '31,"cut')


def test_what_is_bound_is_not_sniffed(tmp_path):
    content = "item_id;title;description\n1;a,b;c\n2;d;e\n"
    rows, _, findings = items(tmp_path, content, delimiter=";")
    assert (rows, findings) == ({1: ("a,b", "c"), 2: ("d", "e")}, [])
    with pytest.raises(InputError, match="column 'item_id' .* missing"):
        items(tmp_path, content, delimiter=",")


def test_files_that_are_read_alike_share_a_finding(tmp_path):
    for number in range(3):
        (tmp_path / f"items-{number}.csv").write_text(semicolons(HEADER + PLAIN))
    (tmp_path / "judgements.csv").write_text("query,item_id,label\nq,1,1\n")
    source = Tables(
        items=str(tmp_path / "items-*.csv"), judgements=str(tmp_path / "judgements.csv")
    ).read()
    (said,) = (finding for finding in source.findings if "separated by" in finding.text)
    assert "items-0.csv and 2 other files: " in said.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"delimiter": ";;"}, "Dialect.delimiter is ';;'", id="two characters"),
        pytest.param({"delimiter": '"'}, "Dialect.delimiter", id="a quote"),
        pytest.param({"quoting": "some"}, "Dialect.quoting", id="no quoting"),
        pytest.param({"encoding": "utf-9"}, "Dialect.encoding is 'utf-9'", id="no encoding"),
        pytest.param({"encoding": "rot13"}, "Dialect.encoding", id="no encoding of bytes"),
        pytest.param({"decimal": ";"}, "Dialect.decimal", id="no decimal"),
    ],
)
def test_dialects_check_themselves(settings, message):
    with pytest.raises(InputError, match=message):
        Dialect(**settings)
