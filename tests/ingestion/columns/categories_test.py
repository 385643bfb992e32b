from __future__ import annotations

import functools
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsirm_jax.data.schema import Chunk
from dsirm_jax.ingestion.columns.categories import LITERAL, Paths, detect, paths_of
from dsirm_jax.ingestion.columns.mapping import split_category

PATHS = [["Home", "kettle"], ["Home", "chair"], ["Garden", "chair"], ["Garden", "hose"]]


def found(cells, **bound):
    return detect(cells, **({"separator": None, "several": None} | bound), binding="Tables.")


def levels(cell, paths):
    return [level.decode() for level in paths.levels(cell.encode())]


MARKS = {
    "greater": ">",
    "arrow": " -> ",
    "entity": " &gt; ",
    "spaced slash": " / ",
    "slash": "/",
    "bar": "|",
    "comma": ", ",
    "quotes": " » ",
    "close quotes": "»",
    "colons": "::",
    "backslash": "\\",
    "dash": " - ",
    "semicolon": "; ",
    "single quotes": " › ",
}


@pytest.mark.parametrize("mark", MARKS.values(), ids=MARKS)
def test_what_parts_most_categories_is_taken_and_told(mark):
    cells = [mark.join(path) for path in PATHS]
    paths, (finding,) = found(cells)
    assert [[level.strip() for level in levels(cell, paths)] for cell in cells] == PATHS
    assert not finding.is_fault
    assert f"{len(cells)} of {len(cells)}" in finding.text and repr(cells[0]) in finding.text
    assert "Tables.category_separator" in finding.text


def test_the_usual_separator_is_tried_first():
    paths, findings = found(["Home > a/b", "Home|x", "Home", "Garden"])
    assert (paths, findings) == (Paths(), [])
    assert found([]) == (Paths(), [])


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param(["Home", "Garden"], id="one level"),
        pytest.param(["Arts & Crafts", "Health, Beauty", "Toys", "Men", "Women", "Kids"], id="few"),
    ],
)
def test_categories_of_one_level_stay(cells):
    assert found(cells) == (Paths(), [])


def test_what_may_part_categories_is_asked_for():
    cells = ["Home, Kitchen", "Health, Beauty", "Toys, Games", "Sports"]
    paths, (finding,) = found(cells)
    assert paths == Paths()
    assert finding.is_fault
    assert "3 of 4 have ','" in finding.text
    assert "bind Tables.category_separator=','" in finding.text


def test_a_separator_that_no_category_has_is_told():
    paths, (finding,) = found(["Home>chair"], separator=" > ")
    assert paths == Paths()
    assert finding.is_fault
    assert "no category of 1 has ' > ', the Tables.category_separator" in finding.text
    assert found(["Home>chair"], separator=">")[1] == []


@pytest.mark.parametrize(
    "write",
    [str, json.dumps, lambda path: f"[{' '.join(map(repr, path))}]", lambda path: str([path])],
    ids=["Python", "JSON", "NumPy", "list of lists"],
)
def test_lists_that_were_written_as_text(write):
    cells = [write(path) for path in PATHS]
    paths, (finding,) = found(cells)
    assert paths == Paths(separator=LITERAL)
    assert not finding.is_fault
    assert [levels(cell, paths) for cell in cells] == PATHS


UTF8 = st.characters(exclude_categories=["Cs"])


@given(st.lists(st.text(UTF8, max_size=8), max_size=4), st.sampled_from([str, json.dumps]))
def test_any_list_of_texts_comes_back(path, write):
    assert levels(write(path), Paths(separator=LITERAL)) == path


@given(st.text(UTF8, max_size=60))
def test_hostile_lists_are_text(text):
    for cell in ("[" * 5_000 + text + "]" * 5_000, f"[__import__('os'){text}]"):
        assert Paths(separator=LITERAL).levels(cell.encode())


@pytest.mark.parametrize(
    ("cells", "separator", "mark"),
    [
        pytest.param(["Home, Home > kettle", "Home > chair, Home"], " > ", ", ", id="beginnings"),
        pytest.param(
            [f"Home > {name}, Sale" for name in ("kettle", "chair", "lamp")], " > ", ", ", id="ends"
        ),
        pytest.param(
            ["Home/kettle,Home/kettle/x", "Home/chair,Home", "Home/c", "Home/d"],
            "/",
            ",",
            id="Magento",
        ),
        pytest.param(["Home > kettle|Sale > x", "Home > chair"], " > ", "|", id="bar"),
        pytest.param(["Home > kettle ; Sale > x", "Home > chair"], " > ", ";", id="semicolon"),
    ],
)
def test_of_several_paths_the_deepest_is_read(cells, separator, mark):
    paths, (*_, finding) = found(cells)
    assert paths == Paths(separator=separator, several=mark)
    assert not finding.is_fault and "Tables.category_list_separator" in finding.text
    assert [level.strip() for level in levels(cells[0], paths)][:2] == ["Home", "kettle"]
    assert levels(cells[1], paths) == ["Home", "chair"]


def test_categories_that_are_parted_otherwise_are_told():
    cells = ["Home > kettle", "Home>chair", "Home>lamp", "Garden"]
    paths, (finding,) = found(cells)
    assert paths == Paths()
    assert finding.is_fault
    assert "2 of 4 have '>' and not ' > '" in finding.text
    assert found(["Home > kettle", "Home", "Garden"])[1] == []


def test_commas_within_names_stay():
    cells = [
        "Electronics > Print, Copy, Scan & Fax > Printers",
        "Electronics > Print, Copy, Scan & Fax > Scanners",
        "Home > Kitchen",
    ]
    assert found(cells) == (Paths(), [])
    paths, _ = found(cells, several=", ")
    assert paths == Paths(several=", ")


def test_cells_that_are_no_utf8_stay_as_they_are():
    cells = pa.array([b"['Home', 'caf\xe9']", None, b"Home"], pa.binary())
    chunk = Chunk(table=pa.table({"category": cells}), file="f")
    table = split_category(chunk, separator=LITERAL).table
    assert table["category"].to_pylist() == [[b"['Home', 'caf\xe9']"], None, [b"Home"]]


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param(
            [["Home", "Home > kettle"], ["Home > chair"], ["Sale", "x"], None], id="lists"
        ),
        pytest.param(
            ["['Home', 'Home > kettle']", "['Home > chair']", "['Sale', 'x']", None], id="text"
        ),
    ],
)
def test_of_a_list_of_whole_paths_the_deepest_is_read(cells):
    chunk = Chunk(table=pa.table({"category": cells}), file="f")
    part = functools.partial(iter, [chunk])
    paths, (finding,) = paths_of([part], separator=None, several=None, binding="Tables.")
    assert "list" in finding.text and not finding.is_fault
    table = split_category(chunk, separator=paths.separator, several=paths.several).table
    expected = [[b"Home", b"kettle"], [b"Home", b"chair"], [b"Sale", b"x"], None]
    assert table["category"].to_pylist() == expected


def test_lists_of_levels_stay():
    chunk = Chunk(table=pa.table({"category": [["Home", "a>b"], None]}), file="f")
    part = functools.partial(iter, [chunk])
    assert paths_of([part], separator=None, several=None, binding="Tables.") == (Paths(), [])
    assert split_category(chunk, separator=" > ") is chunk
