"""LETOR text against scikit-learn's reader and our own."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_svmlight_file

from dsirm_jax.ingestion.judgement_files.letor import Letor
from dsirm_jax.relevance.letor import MOST_GRADES, feature_map, grades_of, letor_lines
from dsirm_jax.relevance.schema import FeatureTable

QUERIES = np.array(["red mug", "pot", "red mug"])


def features(values):
    values = np.asarray(values, np.float32)
    names = tuple(f"feature {number}" for number in range(values.shape[1]))
    return FeatureTable(names=names, groups=("dense",) * len(names), values=values)


def written(table, *, queries, item_ids, grades):
    lines = letor_lines(table, queries=queries, item_ids=item_ids, grades=grades)
    return "".join(f"{line}\n" for line in lines)


def test_the_pairs_of_a_query_stand_together_under_its_text():
    text = written(
        features([[0.5, 0], [-2, 1e-9], [3, 1e6]]),
        queries=QUERIES,
        item_ids=["a", "b 1", "c"],
        grades=np.array([2, 0, 0.25]),
    )
    assert text.splitlines() == [
        "# qid:1: red mug",
        "# qid:2: pot",
        "2 qid:1 1:0.5 2:0 # a",
        "0.25 qid:1 1:3 2:1000000 # c",
        "0 qid:2 1:-2 2:0.000000001 # b 1",
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["mug", "pot", "Krug ß"]),
            st.integers(0, 3),
            st.lists(
                st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=2, max_size=2
            ),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_scikit_learn_reads_the_same_numbers(rows):
    queries, grades, values = zip(*rows, strict=True)
    table = features(values)
    text = written(
        table,
        queries=np.array(queries),
        item_ids=[str(row) for row in range(len(rows))],
        grades=np.array(grades),
    )
    found, labels, qids = load_svmlight_file(
        io.BytesIO(text.encode()), n_features=2, query_id=True, dtype=np.float32, zero_based=False
    )
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    order = [int(line.rpartition("# ")[2]) for line in lines]
    assert sorted(order) == [*range(len(rows))]
    np.testing.assert_array_equal(found.toarray(), table.values[order])
    assert labels.tolist() == [grades[row] for row in order]
    names = dict.fromkeys(queries)
    assert [[*names][qid - 1] for qid in qids] == [queries[row] for row in order]


def test_our_own_reader_reads_it_back(tmp_path):
    path = tmp_path / "head.txt"
    text = written(
        features([[0.5], [1], [2]]), queries=QUERIES, item_ids=["a", "b", "c"], grades=np.arange(3)
    )
    path.write_text(text)
    parts, _ = Letor().read([str(path)], queries=[])
    rows = [row for part in parts for chunk in part() for row in chunk.table.to_pylist()]
    found = {(row["query"].decode(), row["item_id"].decode(), float(row["label"])) for row in rows}
    assert found == {("red mug", "a", 0), ("pot", "b", 1), ("red mug", "c", 2)}


def test_the_map_has_names_without_spaces():
    assert [*feature_map(features([[1, 2]]))] == ["1\tfeature_0\tq", "2\tfeature_1\tq"]


@pytest.mark.parametrize(
    ("known", "grades"),
    [
        pytest.param([0, 0.01, 0.1, 1, 1], [3, 0, 2], id="labels"),
        pytest.param([0, 0.1, 1, *np.linspace(2, 3, MOST_GRADES)], [1, 0, 0.1], id="clicks"),
    ],
)
def test_grades_count_the_gains_where_these_are_few(known, grades):
    assert grades_of(np.array([1, 0, 0.1]), known=np.array(known)).tolist() == grades
