import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.encoder import hugging_face
from dsirm_jax.encoder.kinds.pretrained import Pretrained
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance import fitted as heads
from dsirm_jax.relevance.calibration import divided_by
from dsirm_jax.relevance.heads.tree_params import TreeParams
from dsirm_jax.relevance.heads.trees import BoostedTrees
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import score
from dsirm_jax.serving import QuerySids, Scored, Scorer, ScorerSettings, verify
from dsirm_jax.serving.bundle import contents as bundle
from dsirm_jax.serving.bundle import models
from dsirm_jax.serving.bundle.contents import open_bundle
from dsirm_jax.serving.bundle.manifest import FULL, EncoderSettings
from dsirm_jax.serving.formats import saved_model, stablehlo
from dsirm_jax.serving.update import update
from dsirm_jax.serving.verification import answers as forms
from dsirm_jax.serving.verification.comparison import (
    comparison,
    comparison_table,
    probabilities_beside,
)
from tests.serving import tiny

BERT = Path(__file__).parents[1] / "encoder" / "golden" / "bert"
ANSWERS = forms.Answers(
    sids=np.array([[[0, 1], [1, 2], [1, 0]]]),
    log_probs=np.log(np.array([[0.5, 0.25, 0.25]], np.float32)),
    probability=np.array([0.5], np.float32),
    vector=np.array([[1.0, 0.0]], np.float32),
)


@pytest.fixture
def items(tmp_path):
    pq.write_table(pa.Table.from_pylist(tiny.items(60, 75)), tmp_path / "items.parquet")
    return str(tmp_path / "items.parquet")


def compared(*, beside=(), **changes):
    found = ANSWERS._replace(**changes)
    beside = np.array(beside, np.float32).reshape(-1, 1)
    return comparison(found, ANSWERS, beside=beside, form="a form", batch=1)


def test_forms_agree_up_to_rounding_and_the_order_of_equals():
    swapped = ANSWERS.sids[:, [0, 2, 1]]
    assert compared(sids=swapped, probability=ANSWERS.probability + 4e-6).agrees
    assert compared(vector=np.empty((1, 0), np.float32)).agrees


def test_forms_that_differ_are_told_apart():
    others = [
        {"sids": ANSWERS.sids[:, [1, 0, 2]]},
        {"probability": ANSWERS.probability + 4e-5},
        {"log_probs": ANSWERS.log_probs + 1e-3},
        {"vector": ANSWERS.vector + 1e-4},
        {"probability": np.array([np.nan], np.float32)},
    ]
    found = [compared(**change) for change in others]
    assert not any(of.agrees for of in found)
    assert [of.other_sids for of in found] == [1, 0, 0, 0, 0]
    assert "over 1e-05" in comparison_table(found).splitlines()[1]
    agreed = dataclasses.replace(found[0], other_sids=0)
    assert "over" not in comparison_table([agreed])


def test_a_pair_on_a_step_of_the_head_may_be_on_either_side_of_it():
    found = compared(probability=ANSWERS.probability + 2e-3, beside=[0.5, 0.502])
    assert found.agrees and (found.on_a_step, found.of_pairs) == (1, 0)
    # Elsewhere, or where the head does not jump.
    others = [compared(probability=ANSWERS.probability + of, beside=[0.502]) for of in (1e-3, 3e-3)]
    others.append(compared(probability=ANSWERS.probability + 4e-5, beside=[0.50004]))
    assert not any(of.agrees or of.on_a_step for of in others)


def test_probabilities_beside_those_of_a_value_at_a_trees_threshold():
    head = heads.FittedHead(
        head=BoostedTrees(trees=1, learning_rate=1.0, leaves=2, min_leaf=1, l2=0.0, columns=1.0),
        features=("cosine", "bm25"),
        gains=(0.0, 1.0),
        relevant=(False, True),
        params=TreeParams(
            feature=np.array([[[1]]]),
            threshold=np.array([[[8.0]]], np.float32),
            kept=np.array([[[~np.uint32(1)]]], np.uint32),
            value=np.log(np.array([[[1 / 3, 3]]], np.float32)),
            baseline=np.zeros(1, np.float32),
        ),
        curve=divided_by(1.0),
    )
    values = np.array([[8, 8], [0, 7.999], [8, 8.00001]], np.float32)
    table = FeatureTable(names=head.features, groups=("dense", "lexical"), values=values)
    found = probabilities_beside(head, table)
    expected = [[0.25, 0.25, 0.75]] * 2 + [[0.75, 0.25, 0.75], [0.25, 0.25, 0.25]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


class Told:
    """A scorer that knows two queries and two items; for "b" fewer SIDs exist than beams."""

    sizes, sids = (2, 3), np.array([[0, 1], [1, 2], [1, 0]], np.int32)
    schema = tuple(SimpleNamespace(name=name) for name in ("bm25", "log_prob_1", "size", "cosine"))

    def __init__(self, **sources):
        self.sources = {"a": "cached", "b": "cached"} | sources
        self.together = threading.Barrier(2)

    def query_sids(self, query):
        self.together.wait(timeout=600)  # for the other caller
        most = {"a": 3, "b": 2}[query]
        chances = np.array([0.5, 0.25, 0.125], np.float32)[:most]
        return QuerySids(sids=self.sids[:most], probabilities=chances, source=self.sources[query])

    def score(self, query, item_ids):
        chance = {("a", ("x",)): 0.75, ("b", ("y",)): 0.5}[query, tuple(item_ids)]
        return Scored(
            probabilities=np.array([chance], np.float32),
            dense_only=np.array([0.25], np.float32),
            source=self.sources[query],
            features=np.array([[1, 2, 3, 4 * chance]], np.float32),
            unknown=(),
        )


def test_a_scorer_that_answers_otherwise_is_told_apart():
    head = SimpleNamespace(features=("cosine", "log_prob_1", "bm25"))
    manifest = SimpleNamespace(settings=SimpleNamespace(beams=3))
    learnt = SimpleNamespace(heads={FULL: head}, encoder=None)
    of = SimpleNamespace(manifest=manifest, models=learnt)
    assert verify.sources(of) == {"cached": of}
    sample = forms.PairSample(["a", "b"], ["x", "y"], np.zeros((2, 2)), np.zeros((2, 0)))
    found, given = forms.in_scorer(Told(), of, sample, batch=2, source="cached")
    np.testing.assert_array_equal(given, [[3, 1], [2, 1]])
    expected = forms.Answers(
        sids=np.array([[[0, 1], [1, 2], [1, 0]], [[0, 1], [1, 2], [-1, -1]]]),
        log_probs=np.log([[0.5, 0.25, 0.125], [0.5, 0.25, 1e-30]]),
        probability=np.array([0.75, 0.5]),
        vector=np.ones((2, 4)),
    )
    shared = {"beside": np.empty((0, 2)), "form": "scorer", "batch": 2}
    assert comparison(found, expected, **shared).agrees
    for name in ("sids", "log_probs", "probability"):
        other = expected._replace(**{name: 0.9 * getattr(expected, name)})
        assert not comparison(found, other, **shared).agrees
    with pytest.raises(InputError, match="'b', item 'y': the scorer's answer is fallback, not ca"):
        forms.in_scorer(Told(b="fallback"), of, sample, batch=2, source="cached")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"pairs": 0}, "pairs is 0; give a whole number of at least 1", id="no pairs"),
        pytest.param({"pairs": 2, "batches": ()}, "batches is empty", id="no batches"),
        pytest.param(
            {"pairs": 2, "batches": (4, 0)}, "a size of batches is 0; give", id="empty batch"
        ),
    ],
)
def test_nothing_to_compare_is_refused_before_anything_is_read(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        verify.verify(tmp_path / "nowhere", **arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "further"),
    [
        pytest.param({}, set(), id="plain"),
        pytest.param(
            {"prompt": "a {query} lamp", "grown": True},
            {"XGBoost", "tree JSON"},
            id="trees, in a prompt",
        ),
        pytest.param({"in_lists": ("cosine", "bm25")}, set(), id="in lists"),
    ],
)
def test_all_forms_agree_before_and_after_an_update(items, tmp_path, settings, further):
    path = tiny.make(tmp_path / "bundle", whole=True, **settings)
    before = verify.verify(path, pairs=8, batches=(1, 7))
    update(path, items=items, queries=None)
    after = verify.verify(path, pairs=8, batches=(7,))
    for of in (*before, *after):
        assert of.agrees, comparison_table([of])
    scorers = {"scorer, cached", "scorer, live"}
    forms_found = {of.form for of in after}
    assert forms_found == {"in memory", "StableHLO", "SavedModel", "ONNX"} | scorers | further


@pytest.mark.slow
def test_a_head_that_compares_takes_the_pairs_of_a_query_as_its_list_in_every_form(tmp_path):
    path = tiny.make(tmp_path / "bundle", whole=True, in_lists=("cosine", "bm25"))
    opened = open_bundle(path)
    head = opened.models.heads[FULL]
    ids, query = [f"item {number}" for number in range(20)], tiny.QUERIES[0]
    with Scorer(opened, settings=ScorerSettings(deadline=600.0)) as scorer:
        scored = scorer.score(query, ids)
        alone = scorer.score(query, ids[:1])
        names = tuple(column.name for column in scorer.schema)
    table = FeatureTable(names=names, groups=names, values=scored.features)
    expected = score(head, table, lists=np.zeros(20, np.int32))
    np.testing.assert_allclose(scored.probabilities, expected, atol=1e-5)
    first = FeatureTable(names=names, groups=names, values=scored.features[:1])
    by_itself = score(head, first, lists=np.zeros(1, np.int32))
    np.testing.assert_allclose(alone.probabilities, by_itself, atol=1e-5)
    assert abs(scored.probabilities[0] - alone.probabilities[0]) > 1e-4
    given = table.select(head.features).values
    params = heads.plain_params(head)
    program = stablehlo.read_program(path / bundle.MODEL, f"head-{FULL}")
    found = program(params, given, np.zeros(20, np.int32))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Twenty pairs of one query beside one of another.
    wanted = saved_model.given_features(head, levels=len(tiny.SIZES))
    sample = forms.PairSample(
        queries=[*[query] * 20, tiny.QUERIES[1]],
        item_ids=[*ids, ids[0]],
        sids=opened.catalogue.sids[opened.catalogue.numbers_of([*ids, ids[0]])].astype(np.int32),
        inputs=np.concatenate([table.select(wanted).values, table.select(wanted).values[:1]]),
    )
    answers = forms.in_fresh_process(opened, sample, batches=[21])[21]
    np.testing.assert_allclose(answers.probability[:20], expected, atol=1e-5)


@pytest.mark.slow
def test_all_forms_agree_on_the_vectors_of_a_pretrained_encoder(made, tmp_path):
    path = shutil.copytree(made, tmp_path / "bundle")
    shutil.rmtree(path / "saved_model")
    before, encoder = open_bundle(made), hugging_face.read_folder(BERT)
    module = encoder.module.clone(dim=tiny.DIM)
    kernel = np.random.default_rng(0).normal(size=(module.config.hidden_size, tiny.DIM))
    projection = {"kernel": kernel.astype(np.float32)}
    params = {"params": encoder.params["params"] | {"projection": projection}}
    settings = EncoderSettings(
        kind="BERT",
        dim=tiny.DIM,
        module={
            "config": dataclasses.asdict(module.config),
            "pooling": module.pooling,
            "dim": tiny.DIM,
            "dtype": "float32",
        },
        max_query_pieces=5,
        query_prefix="Kid: ",
    )
    shutil.rmtree(path / bundle.MODEL / models.PARAMETERS)
    fitted = Pretrained.restored(
        dataclasses.asdict(settings), params=params, vocabulary=None, folder=BERT
    )
    learnt = dataclasses.replace(before.models, encoder=fitted)
    models.write_models(path / bundle.MODEL, learnt)
    levels = before.manifest.settings.trie
    programs = stablehlo.programs_of(learnt, beams=tiny.BEAMS, forms=levels)
    stablehlo.write_programs(path / bundle.MODEL, programs)
    manifest = dataclasses.replace(
        before.manifest,
        settings=dataclasses.replace(before.manifest.settings, encoder=settings),
        files={},
    )
    opened = bundle.Bundle(path=path, manifest=manifest)
    folder = path / manifest.saved_model_folder
    saved_model.write_saved_model(folder, opened, programs=programs)
    bundle.seal_bundle(path, manifest)
    sample = verify.sample_pairs(opened, pairs=4)
    assert forms.in_memory(opened, sample, batch=4).vector.shape == (4, settings.dim)
    assert forms.in_fresh_process(opened, sample, batches=[4])[4].vector.shape == (4, settings.dim)
    for of in verify.verify(path, pairs=4, batches=(4,)):
        assert of.agrees, comparison_table([of])


@pytest.mark.slow
def test_an_update_killed_at_any_moment_leaves_the_bundle_as_it_was(made, items, tmp_path):
    """The kill comes at a random moment after the first file of the new catalogue is there."""
    chance = random.Random(0)
    path = shutil.copytree(made, tmp_path / "bundle")
    command = [sys.executable, "-m", "dsirm_jax", "update-bundle", path, f"--items={items}"]
    for _ in range(4):
        process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": os.getcwd()}, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not (path / "catalogue-0002").exists():
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if open_bundle(path).manifest.catalogue == 2:
            break
    if open_bundle(path).manifest.catalogue == 1:
        subprocess.run(command, env=os.environ | {"PYTHONPATH": os.getcwd()}, check=True)
    found = open_bundle(path)
    assert (found.manifest.catalogue, len(found.catalogue)) == (2, 75)
