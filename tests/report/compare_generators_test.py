import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data.identity import QueryIdentity
from dsirm_jax.report.compare_generators import generators_table
from dsirm_jax.run.layout import Layout

NAMES = np.array([f"query {number}" for number in range(8)])
RANKS = np.array([[1, 2], [3, 0], [0, 0], [7, 50]])


def written(folder, *, queries, ranks, branch=None):
    layout = Layout(model_dir=folder)
    for stage in ("prepare", "generate"):
        layout.stage(stage).mkdir(parents=True)
    # Rows that are no test queries come first, another number of them in each run.
    names = [*[f"other {n}" for n in range(min(queries))], *NAMES[queries]]
    pq.write_table(pa.table({"query": names}), layout.queries)
    rows = min(queries) + np.arange(len(queries))
    columns = {"query_index": rows, "ranks": np.asarray(ranks).tolist()}
    if branch is not None:
        columns |= {
            "branch": np.asarray(branch).tolist(),
            "first_entropy": np.ones(len(rows)),
            "first_probability": [[0.5]] * len(rows),
            "prefix_mass": [[[0.5]] * len(branch[0])] * len(rows),
            "prefix_right": [[[True]] * len(branch[0])] * len(rows),
        }
    pq.write_table(pa.table(columns), layout.hits)
    return layout


def table(*layouts):
    lines = generators_table(layouts, identity=QueryIdentity())
    return {line.split("  ")[0]: line.split("  ", 1)[-1] for line in lines[1:]}


def figures(text):
    """Returns the values of A, of B and of their difference."""
    return [float(part.split()[-1]) for part in text.split("[")[:3]]


def test_common_queries_are_compared_by_their_texts(tmp_path):
    branch = np.array([[0.5, 0.25], [0.25, 0.125], [0, 0], [1, 0.5]])
    one = written(tmp_path / "a", queries=[2, 3, 4, 5], ranks=RANKS, branch=branch)
    two = written(
        tmp_path / "b", queries=[4, 5, 6, 7], ranks=[[1, 9], [2, 0], [1, 1], [1, 1]], branch=branch
    )
    found = table(one, two)
    # Queries 4 and 5: of A the last two rows, of B the first two.
    assert found.pop("2 test queries").split() == ["A", "B", "B", "−", "A"]
    shown = {name: figures(text) for name, text in found.items() if "[" in text}
    assert shown["level 1, hit@1"] == [0, 0.5, 0.5]
    assert shown["level 1, hit@5"] == [0, 1, 1]
    assert shown["level 1, hit@10"] == [0.5, 1, 0.5]
    assert shown["level 2, hit@10"] == [0, 0.5, 0.5]
    assert shown["level 2, hit@100"] == [0.5, 0.5, 0]
    assert shown["level 1, probability"] == [0.5, 0.375, -0.125]
    assert shown["level 2, probability"] == [0.25, 0.1875, -0.0625]
    assert len(shown) == 10


def test_runs_of_earlier_versions_have_hits_alone(tmp_path):
    old = written(tmp_path / "a", queries=[2, 3, 4, 5], ranks=RANKS)
    new = written(tmp_path / "b", queries=[2, 3, 4, 5], ranks=RANKS, branch=np.ones((4, 2)))
    for layouts in ((old, new), (new, old)):
        found = table(*layouts)
        assert figures(found["level 2, hit@5"]) == [0.25, 0.25, 0]
        assert not [name for name in found if "probability" in name]


@pytest.mark.parametrize(
    "queries, levels",
    [
        pytest.param([6, 7], 2, id="no common query"),
        pytest.param([2, 3], 1, id="other levels"),
    ],
)
def test_what_cannot_be_compared_is_left_out(tmp_path, queries, levels):
    one = written(tmp_path / "a", queries=[2, 3], ranks=RANKS[:2])
    two = written(tmp_path / "b", queries=queries, ranks=RANKS[:2, :levels])
    assert generators_table((one, two), identity=QueryIdentity()) == []
