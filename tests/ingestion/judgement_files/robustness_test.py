"""Whatever a file holds: no line is lost, and no error is other than one for the user."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.ingestion.judgement_files.letor import Letor
from dsirm_jax.ingestion.judgement_files.qrels import Qrels
from dsirm_jax.ingestion.judgement_files.recognition import all_kinds
from dsirm_jax.ingestion.judgement_files.ubi import Ubi
from dsirm_jax.io.errors import InputError

GOOD = {
    Qrels: "red shoe\t0\tA1\t2",
    Letor: "2 qid:1 1:0.5 # A1 red shoe",
    Ubi: json.dumps(
        {
            "action_name": "view",
            "user_query": "red shoe",
            "event_attributes": {"object": {"object_id": "A1"}},
        }
    ),
}
odd_lines = st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=30))
names = ["queries", "query", "ratings", "docId", "judgmentRatings", "hits", "_source", "$query"]
names += ["action_name", "user_query", "event_attributes", "object", "placeholders"]
documents = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(names), inner, max_size=3)
    ),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("layouts") / "judged.txt"


def read(kind, path):
    """Returns the number of rows, those that cannot be read among them."""
    parts, _ = kind().read([str(path)], queries=[])
    return sum(chunk.table.num_rows for part in parts for chunk in part())


@pytest.mark.parametrize("kind", list(GOOD))
@given(odd=odd_lines)
@settings(deadline=None, max_examples=60)
def test_every_line_is_a_row(path, kind, odd):
    odd = [line for line in odd if line.strip() and not line.strip().startswith("#")]
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("".join(f"{line}\n" for line in [GOOD[kind], *odd]))
    # What is JSON by chance may be an event of another action.
    if kind is Ubi and any("{" in line for line in odd):
        return
    assert read(kind, path) == 1 + len(odd)


@given(document=documents)
@settings(deadline=None, max_examples=150)
def test_any_json_is_read_or_refused(path, document):
    path.write_text(json.dumps(document), encoding="utf-8")
    for kind in all_kinds():
        try:
            parts, _ = kind.read([str(path)], queries=[])
            for part in parts:
                list(part())
        except InputError as error:
            assert "\n" not in str(error)


@given(data=st.binary(min_size=1, max_size=60))
@settings(deadline=None, max_examples=150)
def test_any_bytes_are_read_or_refused(path, data):
    path.write_bytes(data)
    for kind in all_kinds():
        try:
            parts, _ = kind.read([str(path)], queries=[])
            for part in parts:
                list(part())
        except InputError as error:
            assert "\n" not in str(error)
