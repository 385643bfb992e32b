"""A group of a user's own: a module on the path and lines of gin; or a module of the package."""

from __future__ import annotations

import importlib
import sys

import gin
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data import vocabulary
from dsirm_jax.data.vectors import write_vectors
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance import groups, tables
from dsirm_jax.relevance.compute import rung_features
from dsirm_jax.relevance.nearest.search import Neighbours
from dsirm_jax.relevance.neighbours import Judged, Surroundings
from dsirm_jax.relevance.score import score
from dsirm_jax.run import configuration
from dsirm_jax.run.layout import Layout
from dsirm_jax.serving import export
from dsirm_jax.sids.prefix_match import Beams
from dsirm_jax.stages import features, match, relevance
from tests.serving.tiny import random_head

MODULE = """
import functools

import jax.numpy as jnp
import numpy as np

from dsirm_jax.relevance.features.group import BEAMS, PER_LEVEL, Column, Group


def popularity(context, power):
    suits = context.surroundings.judged.items[context.surroundings.judged.verdicts > 0]
    counts = np.bincount(suits, minlength=len(context.item_vectors))
    return np.stack([counts[context.item_index] ** power, context.query_row], axis=1)


def group(power=1.0):
    return Group(
        name="popularity",
        columns=(Column("sales", "what it says"), Column("query_row", "for a test")),
        compute=functools.partial(popularity, power=power),
    )


def same_code(context):
    codes = context.queries.beams.sids[:, :1], context.items.sids
    return (codes[0] == codes[1]).astype(jnp.float32)


def of_beams():
    return Group(
        name="codes",
        reads=BEAMS,
        columns=(Column("same_code", "of the first beam", PER_LEVEL),),
        compute=same_code,
    )
"""
GIN = """
from __gin__ import dynamic_registration
import my_groups
from dsirm_jax.relevance import groups
from dsirm_jax.stages import features
from dsirm_jax.stages import match
from dsirm_jax.stages import relevance
features.run.extra_groups = (@my_groups.group(),)
match.run.extra_groups = (@my_groups.of_beams(),)
my_groups.group.power = 2.0
groups.all_groups.extra = ('popularity', 'codes')
relevance.run.rungs = {'no_sid': @groups.without_sids(), 'full': @groups.all_groups()}
"""
ITEMS = ["red shoe", "blue shoe", "red bag"]
QUERIES = ["shoe", "bag", "red"]
JUDGED = [(0, 0, True, "train"), (1, 0, True, "head"), (0, 2, True, "test"), (2, 2, False, "train")]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A folder in which modules are found; gin knows each for the rest of the process."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "my_groups.py").write_text(MODULE)
    (folder / "run.gin").write_text(GIN)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def configured(path):
    configuration.parse(files=[str(path / "run.gin")], bindings=[])
    yield
    gin.clear_config(clear_constants=True)


@pytest.fixture
def layout(tmp_path):
    """A MODEL_DIR after `prepare` and `encode`."""
    layout = Layout(model_dir=tmp_path / "run")
    layout.items.parent.mkdir(parents=True)
    layout.features.parent.mkdir()
    nothing = pa.array([None] * 3, pa.string())
    columns = {"text": ITEMS, "title": ITEMS, "brand": nothing, "colour": nothing}
    pq.write_table(pa.table({"item_id": ["a", "b", "c"], **columns}), layout.items)
    pq.write_table(pa.table({"query": QUERIES}), layout.queries)
    names = ("query_index", "item_index", "relevant", "split")
    judgements = dict(zip(names, zip(*JUDGED, strict=True), strict=True))
    pq.write_table(pa.table({n: list(of) for n, of in judgements.items()}), layout.judgements)
    vocabulary.train_vocabulary(
        texts=iter([*ITEMS, *QUERIES] * 9), size=280, path=layout.vocabulary, seed=0
    )
    vectors = np.eye(3, dtype=np.float32)
    for pattern, ids, column in (
        (layout.item_vectors, ["a", "b", "c"], "item_id"),
        (layout.query_vectors, QUERIES, "query"),
    ):
        shard = pattern.with_name(pattern.name.replace("*", "00000-of-00001"))
        write_vectors(shard, ids, vectors, id_column=column)
    return layout


def test_a_group_of_ones_own_is_computed_and_read_by_name(configured, layout):
    features.run(layout, **configuration.bound(features.run))
    table = tables.read_features(layout.features, groups=("popularity", "dense"))
    assert table.names == ("cosine", "sales", "query_row")
    # Item 0 suits the training queries 0 and 1, item 2 the test query alone; the power is 2.
    assert table.select(["sales", "query_row"]).values.tolist() == [[4, 0], [4, 1], [0, 0], [0, 2]]
    head = random_head(["query_row", "cosine", "sales"], seed=0)
    values = table.values[:, [2, 0, 1]]
    other = random_head(["0", "1", "2"], seed=0)
    named = table.select(table.names[::-1])
    np.testing.assert_array_equal(score(head, table), score(head, named))
    by_place = type(table)(names=other.features, groups=table.groups, values=values)
    np.testing.assert_array_equal(score(head, table), score(other, by_place))


def test_a_group_that_reads_beams_is_computed_in_jax(configured):
    of_sids = groups.reading(
        "beams", "neighbour_sids", extra=configuration.bound(match.run)["extra_groups"]
    )
    near = Neighbours(np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32))
    sids = np.array([[0, 1], [0, 2]], np.int32)
    table = rung_features(
        groups=of_sids,
        query_index=np.array([0, 0]),
        item_index=np.array([1, 0]),
        sids=sids,
        log_shares=np.zeros((2, 2), np.float32),
        beams=Beams(sids[None, :1], np.zeros((1, 1), np.float32), np.ones((1, 1), bool)),
        pair_log_probs=np.zeros((2, 2), np.float32),
        surroundings=Surroundings(
            near, near, Judged(np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32))
        ),
    )
    assert table.groups[-2:] == ("codes", "codes")
    found = table.select(["same_code_1", "same_code_2", "match_depth"]).values
    assert found.tolist() == [[1, 0, 0.5], [1, 1, 1]]


def test_a_rung_names_it_and_export_says_why_it_cannot_be_served(configured):
    rungs = configuration.bound(relevance.run)["rungs"]
    assert rungs["full"] == (*groups.package_groups(), "popularity", "codes")
    given = {name: configuration.bound(stage.run) for name, stage in STAGES.items()}
    relevance.check(given)
    with pytest.raises(InputError, match="feature group 'popularity'; choose from dense"):
        relevance.check(given | {"features": {}})
    with pytest.raises(InputError, match="'popularity', which is not computed when serving: only"):
        export.check_servable(rungs, crossfit=False)
    # Nor is it in the head that answers when the generator is late.
    assert export.dense_rung(rungs | {"mine": ("dense", "popularity")}) == "no_sid"
    assert export.dense_rung({"mine": ("dense", "popularity")}) is None


STAGES = {"features": features, "match": match, "relevance": relevance}


def test_another_power_is_another_fingerprint(configured, path):
    def described():
        return configuration.description(configuration.bound(features.run))

    before = described()
    assert described() == before
    configuration.parse(files=[str(path / "run.gin")], bindings=["my_groups.group.power = 3.0"])
    assert described() != before


def test_a_module_in_the_folder_is_a_group_of_the_package(path):
    folder = path / "some_features"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "last.py").write_text(f"{MODULE}\nGROUP = group()\n")
    (folder / "shared.py").write_text("NOTHING = 1\n")
    (folder / "first.py").write_text(
        f"import dataclasses\n{MODULE}\nGROUP = dataclasses.replace(of_beams(), order=1)\n"
    )
    package = importlib.import_module("some_features")
    assert list(groups.groups_in(package)) == ["codes", "popularity"]
    (folder / "again.py").write_text(f"{MODULE}\nGROUP = group()\n")
    importlib.invalidate_caches()
    with pytest.raises(InputError, match="two feature groups are named 'popularity'"):
        groups.groups_in(package)
