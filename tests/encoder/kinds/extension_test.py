"""An encoder of one's own: one file, and one line of gin."""

import dataclasses
import functools
import importlib
import json
import sys
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.ahead import compile as ahead
from dsirm_jax.data.vectors import read_vectors
from dsirm_jax.encoder.kinds.protocol import DenseEncoder, FittedEncoder
from dsirm_jax.io.errors import InputError
from dsirm_jax.run import configuration
from dsirm_jax.run.layout import Layout
from dsirm_jax.serving.bundle import models
from dsirm_jax.serving.bundle.manifest import EncoderSettings
from dsirm_jax.serving.export import read_encoder
from dsirm_jax.serving.formats import saved_model, stablehlo
from dsirm_jax.serving.scorer.vectors import query_encoder
from dsirm_jax.stages import encode, further_pairs

MODULE, DIM = "hashed_words", 8
SOURCE = '''
"""Words hashed into vectors: nothing is learnt."""

import dataclasses
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsirm_jax.encoder.embed import embed, embed_tables
from dsirm_jax.encoder.losses import normalised


class Counts(nn.Module):
    dim: int

    def __call__(self, pieces):
        return normalised(jax.nn.one_hot(pieces, self.dim).sum(axis=1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class HashedWords:
    dim: int
    padding = -1
    params = {}
    max_query_pieces = 8
    max_item_pieces = 16
    made_once = True

    @property
    def module(self):
        return Counts(self.dim)

    def pieces(self, texts, *, of_items=False):
        most = self.max_item_pieces if of_items else self.max_query_pieces
        return [[zlib.crc32(w.encode()) % self.dim for w in text.split()[:most]] for text in texts]

    def embed(self, texts, *, of_items=False, name="encode"):
        return self.embed_pieces(self.pieces(texts, of_items=of_items), name=name)

    def embed_pieces(self, pieces, *, of_items=False, name="encode"):
        return embed(
            tower=self.module,
            params=self.params,
            pieces=pieces,
            max_pieces=self.max_item_pieces,
            name=name,
            padding=self.padding,
        )

    def files(self):
        return []

    def fit(self, tables, *, directory, seed, start=None):
        embed_tables(self, tables)

    def query_vectors(self, texts, *, directory, vocabulary):
        return self.embed(texts)

    def fitted(self, *, directory, vocabulary):
        return self

    def described(self):
        lengths = {"max_query_pieces": 8, "max_item_pieces": 16}
        return {"dim": self.dim, "module": {"dim": self.dim}, **lengths}

    @classmethod
    def restored(cls, described, *, params, vocabulary, folder):
        return cls(**described["module"])

    def save_tokenizer(self, folder):
        pass

    def pieces_in_tensorflow(self, tokens):
        return None

    def training_step(self, *, devices, vocab_size, rows):
        return None
'''
GIN = f"""
from __gin__ import dynamic_registration
import {MODULE}
from dsirm_jax.stages import encode
encode.run.encoder = @{MODULE}.HashedWords()
{MODULE}.HashedWords.dim = {DIM}
"""
ITEMS = ("red shoe", "red red mug", "blue mug for kids")
QUERIES = ("mug", "shoe red")


def expected(texts):
    """Counts the words of each text by their hash, at length 1."""
    counts = np.zeros((len(texts), DIM), np.float32)
    for row, text in enumerate(texts):
        for word in text.split():
            counts[row, zlib.crc32(word.encode()) % DIM] += 1
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The encoder that gin binds, from a module outside this package."""
    folder = tmp_path_factory.mktemp("own")
    (folder / f"{MODULE}.py").write_text(SOURCE)
    (folder / "own.gin").write_text(GIN)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    configuration.parse(files=[str(folder / "own.gin")], bindings=[])
    yield configuration.bound(encode.run)["encoder"]
    sys.path.remove(str(folder))
    sys.modules.pop(MODULE, None)


@pytest.fixture(scope="module")
def layout(encoder, tmp_path_factory):
    """A run whose texts it has encoded."""
    layout = Layout(model_dir=tmp_path_factory.mktemp("run"))
    layout.items.parent.mkdir()
    items = {"item_id": list("abc"), "text": ITEMS}
    pq.write_table(pa.table(items), layout.items, row_group_size=2)
    pq.write_table(pa.table({"query": QUERIES}), layout.queries)
    encode.run(layout, seed=0, encoder=encoder)
    return layout


def test_it_keeps_the_protocols(encoder):
    assert isinstance(encoder, DenseEncoder) and isinstance(encoder, FittedEncoder)


def test_its_vectors_are_those_of_the_run_and_of_queries_scored_later(encoder, layout):
    items = read_vectors(layout.item_vectors, ids=list("abc"), id_column="item_id")
    np.testing.assert_allclose(items, expected(ITEMS), atol=1e-6)
    assert len(list(layout.item_vectors.parent.glob("items-*"))) == 2
    queries = further_pairs._queries(layout, ["kids mug", QUERIES[0]])
    scratch = layout.stage("encode")
    vectors = further_pairs._query_vectors(layout, queries, encoder=encoder, scratch=scratch)
    np.testing.assert_allclose(vectors, expected([*QUERIES, "kids mug"]), atol=1e-6)


def test_a_bundle_holds_it_and_names_its_class(encoder, layout, tmp_path):
    settings, fitted = read_encoder(layout, encoder=encoder)
    assert (settings.kind, settings.dim) == (f"{MODULE}.HashedWords", DIM)
    fitted.save_tokenizer(tmp_path)
    models.write_weights(
        tmp_path / models.WEIGHTS, {"encoder": fitted.params, "head": np.ones(2, np.float32)}
    )
    described = json.loads(json.dumps(dataclasses.asdict(settings)))
    opening = functools.partial(
        models.restored_encoder,
        EncoderSettings(**described),
        params=models.read_weights(tmp_path / models.WEIGHTS).get("encoder", {}),
        vocabulary=None,
        folder=tmp_path,
    )
    served = opening()
    vector = query_encoder(served)
    np.testing.assert_allclose(vector("blue mug"), expected(["blue mug"])[0], atol=1e-6)
    np.testing.assert_allclose(served.embed(ITEMS, of_items=True), expected(ITEMS), atol=1e-6)
    assert stablehlo.encoder_program(served.module, served.params).out_avals[0].shape[1] == DIM
    module = sys.modules.pop(MODULE)
    try:
        with pytest.raises(InputError, match=f"nothing has imported {MODULE}: import it"):
            opening()
    finally:
        sys.modules[MODULE] = module


def test_a_saved_model_without_its_like_in_tensorflow_has_no_vectors(encoder, caplog):
    assert saved_model._encoder_pieces(encoder, tokens=None) is None
    assert "the SavedModel has no query_vector" in caplog.text


def test_a_manifest_names_no_class_that_is_no_encoder(tmp_path):
    settings = EncoderSettings(kind="subprocess.Popen", dim=DIM)
    with pytest.raises(InputError, match="subprocess.Popen is no frozen dataclass"):
        models.restored_encoder(settings, params={}, vocabulary=None, folder=tmp_path)


def test_what_learns_nothing_has_no_step_to_compile_and_is_encoded_once(encoder):
    bindings = {"encode": {"encoder": encoder}, "prepare": {"vocabulary_size": 100}}
    target = ahead.Target(topology="v5e:2x2")
    assert ahead.encode_step(bindings, target, devices=[]) is None
    assert encoder.made_once
