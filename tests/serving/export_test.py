import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data import wordpieces
from dsirm_jax.data.vectors import write_vectors
from dsirm_jax.encoder import hugging_face
from dsirm_jax.encoder.kinds import pretrained
from dsirm_jax.encoder.kinds.precomputed import Precomputed
from dsirm_jax.encoder.kinds.pretrained import Pretrained
from dsirm_jax.io.errors import InputError
from dsirm_jax.run.layout import Layout
from dsirm_jax.serving.bundle import contents as bundle
from dsirm_jax.serving.bundle import manifest as manifests
from dsirm_jax.serving.bundle import models
from dsirm_jax.serving.bundle.contents import open_bundle
from dsirm_jax.serving.bundle.manifest import FULL
from dsirm_jax.serving.export import check_servable, dense_rung, read_encoder
from dsirm_jax.serving.update import update
from dsirm_jax.training.settings import Training
from tests.serving import tiny

BERT = Path(__file__).parents[1] / "encoder" / "golden" / "bert"
RUNGS = {
    "bare": ("dense",),
    "no_sid": ("dense", "lexical"),
    "own": ("dense", "lexical", "prefix@own"),
    "full": ("dense", "lexical", "prefix"),
}


def test_what_cannot_be_served_is_refused():
    check_servable(RUNGS, crossfit=False)
    with pytest.raises(InputError, match=r"Job\.crossfit = False and another MODEL_DIR"):
        check_servable(RUNGS, crossfit=True)
    with pytest.raises(InputError, match=r"relevance\.run\.rungs has no 'full'"):
        check_servable({"no_sid": ("dense",)}, crossfit=False)
    with pytest.raises(InputError, match="'prefix@own', which is not computed when serving"):
        check_servable(RUNGS | {"full": RUNGS["own"]}, crossfit=False)


def test_the_fallback_is_the_richest_rung_that_knows_nothing_of_sids():
    assert dense_rung(RUNGS) == "no_sid"
    assert dense_rung({"full": ("dense",), "own": ("prefix@own",)}) is None


def test_every_column_of_a_head_is_described(made):
    found = open_bundle(made).manifest.features[FULL]
    head = open_bundle(made).models.heads[FULL]
    assert tuple(feature.name for feature in found) == head.features
    told = {feature.name: (feature.group, feature.about) for feature in found}
    assert told["bm25"][0] == "lexical" and told["price"][0] == "numeric"
    assert told["log_prob_2"][0] == "prefix" and told["log_prob_2"][1].endswith("l = 2")
    assert all(about for _, about in told.values())


def test_a_pretrained_encoder_goes_into_a_bundle_with_its_tokenizer_and_prefixes(made, tmp_path):
    layout = Layout(model_dir=tmp_path)
    encoder = hugging_face.read_folder(BERT)
    hugging_face.write_folder(layout.stage("encode") / pretrained.FOLDER, encoder)
    config = Pretrained(
        folder=str(BERT),
        max_query_pieces=6,
        max_item_pieces=9,
        training=Training(epochs=0, batch_size=8, learning_rate=0.0),
        query_prefix="query: ",
    )
    settings, fitted = read_encoder(layout, encoder=config)
    assert (settings.kind, settings.query_prefix, settings.item_prefix) == ("BERT", "query: ", "")
    assert (settings.max_query_pieces, settings.max_item_pieces) == (6, 9)
    # As from a manifest.
    settings = manifests.EncoderSettings(**json.loads(json.dumps(dataclasses.asdict(settings))))
    (tmp_path / "model").mkdir()
    applied = dataclasses.replace(open_bundle(made).models, encoder=fitted)
    models.write_models(tmp_path / "model", applied)
    params = models.read_parameters(tmp_path / "model" / models.PARAMETERS)["encoder"]
    again = models.restored_encoder(
        settings, params=params, vocabulary=applied.vocabulary, folder=tmp_path / "model"
    )
    for of_items in (False, True):
        texts = ["red shoe", "kid size 10 mug"]
        assert again.pieces(texts, of_items=of_items) == fitted.pieces(texts, of_items=of_items)
    tokenizer = wordpieces.read_tokenizer(tmp_path / "model")
    pieces = np.array(wordpieces.tokenize(tokenizer, ["red shoe"], prefix="", max_pieces=9))
    expected = encoder.module.apply(encoder.params, pieces)
    np.testing.assert_allclose(again.module.apply(params, pieces), expected, atol=1e-6)


def test_vectors_of_ones_own_leave_a_bundle_without_an_encoder(tmp_path):
    layout = Layout(model_dir=tmp_path)
    path = layout.item_vectors.with_name("items-00000-of-00001.parquet")
    write_vectors(path, ["a", "b"], np.ones((2, 5), np.float32), id_column="item_id")
    settings, fitted = read_encoder(layout, encoder=Precomputed(items="i", queries="q"))
    assert (settings.kind, settings.dim) == (models.NONE, 5)
    assert fitted is None
    again = models.restored_encoder(settings, params={}, vocabulary=None, folder=tmp_path)
    assert again is None


def test_a_bundle_without_an_encoder_takes_vectors_along(made, tmp_path):
    path = shutil.copytree(made, tmp_path / "bundle")
    manifest = open_bundle(path).manifest
    settings = dataclasses.replace(
        manifest.settings, encoder=manifests.EncoderSettings(kind=models.NONE, dim=tiny.DIM)
    )
    bundle.seal_bundle(path, dataclasses.replace(manifest, settings=settings))
    table = pa.Table.from_pylist(tiny.items(60, 63))
    pq.write_table(table, tmp_path / "items.parquet")
    with pytest.raises(InputError, match=r"items\.parquet: column 'vector' is missing"):
        update(path, items=str(tmp_path / "items.parquet"), queries=None)
    vectors = np.random.default_rng(0).normal(size=(3, tiny.DIM)).astype(np.float32)
    pq.write_table(
        table.append_column("vector", pa.array(vectors.tolist(), pa.list_(pa.float32()))),
        tmp_path / "items.parquet",
    )
    pq.write_table(
        pa.table({"query": ["unheard of"], "vector": [vectors[1].tolist()]}),
        tmp_path / "queries.parquet",
    )
    update(path, items=str(tmp_path / "items.parquet"), queries=str(tmp_path / "queries.parquet"))
    found = open_bundle(path).catalogue
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(found.vectors[60:], vectors / lengths, atol=1e-6)
    cached = found.cached("unheard of")
    np.testing.assert_array_equal(cached.vectors, vectors[1:2])
    assert cached.items.row[0, 0] == 61  # the item of the same vector
