"""JSON in every shape: lines, arrays and pretty-printed objects, with NaN for what is missing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.data.schema import Source
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.mapping import item_mapping, split_categories
from dsirm_jax.ingestion.dialect import Dialect
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import items_of

ITEMS = item_mapping({}, [], binding="Tables.item_columns")


def items(path, sample=1 << 20):
    files, findings = formats.opened(
        [str(path)],
        mapping=ITEMS,
        dialect=Dialect(),
        binding="items/dialect.Dialect",
        limits=formats.Limits(sample=sample, bytes=10_000),
    )
    parts = split_categories(files[0].parts, separator=" > ")
    findings = [finding for finding in findings if "columns read" not in finding.text]
    return *items_of(Source(items=parts, judgements=[])), findings


TEXT = st.text(st.sampled_from('ab"\\[]{},:\n日é\u2028'), max_size=8)
OBJECTS = st.lists(
    st.fixed_dictionaries({"item_id": st.integers(0, 9), "title": TEXT}, optional={"brand": TEXT}),
    min_size=1,
    max_size=9,
)
WRITERS = {
    "lines": lambda rows: "".join(json.dumps(row) + "\n" for row in rows),
    "array": json.dumps,
    "pretty array": lambda rows: json.dumps(rows, indent=1, ensure_ascii=False),
    "array of lines": lambda rows: "[" + ",\n".join(map(json.dumps, rows)) + "]\n",
    "pretty objects": lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows),
}


@settings(deadline=None, max_examples=150)
@given(
    rows=OBJECTS,
    shape=st.sampled_from(sorted(WRITERS)),
    sample=st.sampled_from([40, 1000]),
    suffix=st.sampled_from([".json", ".jsonl"]),
)
def test_every_shape_holds_the_same_rows(tmp_path_factory, rows, shape, sample, suffix):
    path = tmp_path_factory.mktemp("json") / f"items{suffix}"
    path.write_text(WRITERS[shape](rows), "utf-8")
    kept, rejected, findings = items(path, sample)
    found = {row["_row"]: row["title"] for row in kept} | {
        row["row"]: row["value"] for row in rejected
    }
    titles = [" ".join(row["title"].split()) or None for row in rows]
    assert found == dict(enumerate(titles, 1))
    assert bool(findings) == (shape != "lines")


def test_nan_and_infinities_are_null_in_every_column_and_list(tmp_path):
    (tmp_path / "items.jsonl").write_text(
        '{"item_id": "1", "title": "a", "brand": NaN, "colour": Infinity, "category": ["b", NaN]}\n'
        '{"item_id": "2", "title": NaN}\n'
        '{"item_id": NaN, "title": "c"}\n'
        '{"item_id": "4", "title": "NaN"}\n'
    )
    kept, rejected, _ = items(tmp_path / "items.jsonl")
    names = ("title", "brand", "colour", "category", "text")
    assert [tuple(row[name] for name in names) for row in kept] == [
        ("a", None, None, ["b"], "a"),
        ("NaN", None, None, None, "NaN"),
    ]
    assert [(row["row"], row["reason"]) for row in rejected] == [
        (2, "empty title"),
        (3, "empty item_id"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param('[{"item_id": 1, "title": "a"}, {"item_id"', "after row 1", id="cut array"),
        pytest.param('[{"item_id": 1, "title": "a"}\n', "after row 1", id="open array"),
        pytest.param('[\n{"item_id": 1, "title": "a"}, nul]', "after row 1", id="no value"),
        pytest.param('[\n{"item_id": 1, "title": "a"}]\n{}', "after row 1", id="more behind"),
        pytest.param('[\n{"title": "%s"}]' % ("x" * 20_000), "row 1 is no JSON", id="too long"),
    ],
)
def test_broken_arrays_are_named(tmp_path, content, message):
    path = tmp_path / "items.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        items(path)
    assert str(path) in str(error.value)


def test_elements_that_are_no_objects_are_rejected(tmp_path):
    path = tmp_path / "items.json"
    path.write_text('[{"item_id": 1, "title": "a"}, 2, [3], {"item_id": 4, "title": "d"}]')
    kept, rejected, _ = items(path)
    assert [row["_row"] for row in kept] == [1, 4]
    assert [(row["row"], row["reason"]) for row in rejected] == [
        (2, "not a JSON object"),
        (3, "not a JSON object"),
    ]
