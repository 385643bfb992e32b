"""An architecture in a module of the user's own: one file, and one line of gin."""

import importlib
import itertools
import sys

import gin
import jax
import numpy as np
import pytest

from dsirm_jax import generator
from dsirm_jax.io.errors import InputError
from dsirm_jax.run import configuration
from dsirm_jax.serving.formats import stablehlo
from dsirm_jax.sids import trie as tries
from dsirm_jax.stages import generate
from dsirm_jax.training.settings import Training

MODULE = '''
"""A bag of pieces, to which the codes of a SID are added one after the other."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from dsirm_jax.generator.architectures.architecture import Architecture


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagOfPieces(Architecture):
    dim: int
    text_vocab_size: int = 0
    sid_sizes: tuple[int, ...] = ()

    def init(self, key):
        sizes = dict(enumerate(self.sid_sizes))
        text, codes, heads = jax.random.split(key, 3)
        normal = jax.random.normal
        return {
            "text": normal(text, (self.text_vocab_size, self.dim)),
            "codes": {str(l): normal(codes, (size, self.dim)) for l, size in sizes.items()},
            "heads": {str(l): normal(heads, (self.dim, size)) for l, size in sizes.items()},
        }

    def logical_axes(self):
        levels = [str(level) for level in range(len(self.sid_sizes))]
        return {
            "text": PartitionSpec(None, "embed"),
            "codes": {level: PartitionSpec(None, "embed") for level in levels},
            "heads": {level: PartitionSpec("embed", None) for level in levels},
        }

    def encode(self, params, tokens):
        is_text = (tokens > 0)[..., None]
        return jnp.sum(params["text"][tokens] * is_text, 1) / jnp.maximum(jnp.sum(is_text, 1), 1)

    def decode(self, params, state, codes, past=None):
        decoded = 0 if past is None else past.shape[2]
        if past is None:
            past = jnp.repeat(state[:, None, None], codes.shape[1], axis=1)
        for number in range(codes.shape[2]):
            last = past[:, :, -1:]
            added = params["codes"][str(past.shape[2] - 1)][codes[..., number, None]]
            past = jnp.concatenate([past, jnp.tanh(last + added)], axis=2)
        levels = range(decoded, past.shape[2])
        return tuple(past[:, :, level] @ params["heads"][str(level)] for level in levels), past
'''
GIN = """
from __gin__ import dynamic_registration
import bag_of_pieces
from dsirm_jax.stages import generate

generate.run.config = @bag_of_pieces.BagOfPieces()
bag_of_pieces.BagOfPieces.dim = 16
"""
SIZES, BEAMS, VOCABULARY = (3, 4, 5), 4, 30


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """What gin binds as `generate.run.config`."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "bag_of_pieces.py").write_text(MODULE)
    (folder / "own.gin").write_text(GIN)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    configuration.parse(files=[str(folder / "own.gin")], bindings=[])
    bound = configuration.bound(generate.run)["config"]
    yield bound.fitted_to(text_vocab_size=VOCABULARY, sid_sizes=SIZES)
    gin.clear_config(clear_constants=True)
    sys.path.remove(str(folder))
    sys.modules.pop("bag_of_pieces", None)


RANDOM = np.random.default_rng(0)
PIECES = [RANDOM.integers(1, VOCABULARY, length).tolist() for length in RANDOM.integers(1, 9, 24)]
SIDS = RANDOM.integers(0, SIZES, (24, 3)).astype(np.int32)


@pytest.fixture(scope="module")
def fitted(config, tmp_path_factory):
    return generator.fit_generator(
        config=config,
        training=Training(epochs=40, batch_size=8, learning_rate=0.05, log_every=1000),
        pieces=PIECES,
        sids=SIDS,
        max_pieces=8,
        directory=tmp_path_factory.mktemp("run"),
        sid_version="v1",
        devices=jax.devices()[:1],
    )


def log_softmax(x):
    return x - np.log(np.exp(x).sum())


def exact(params, pieces, sid):
    """log P of the prefixes of a SID in plain NumPy, float64."""
    state = np.mean([params["text"][piece] for piece in pieces], axis=0, dtype=np.float64)
    total, values = 0.0, []
    for level, code in enumerate(sid):
        total += log_softmax(state @ params["heads"][str(level)])[code]
        values.append(total)
        if level + 1 < len(sid):
            state = np.tanh(state + params["codes"][str(level)][code])
    return values


def test_it_learns_its_rows_and_finds_and_scores_their_sids(fitted):
    trie = tries.build(SIDS, sizes=SIZES)
    beams = generator.predict_sids(
        fitted=fitted, trie=trie, pieces=PIECES, beams=BEAMS, batch_size=8
    )
    assert (beams.sids[:, 0] == SIDS).all(axis=1).mean() > 0.8
    existing = {tuple(sid) for sid in SIDS.tolist()}
    for pieces, sids, scores in zip(PIECES, beams.sids.tolist(), beams.log_probs, strict=True):
        assert {tuple(sid) for sid in sids} <= existing
        expected = [exact(fitted.params, pieces, sid)[-1] for sid in sids]
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    log_probs = generator.score_pairs(
        fitted=fitted, pieces=PIECES, query_index=np.arange(24), sids=SIDS[::-1], batch_size=8
    )
    expected = [exact(fitted.params, *row) for row in zip(PIECES, SIDS[::-1], strict=True)]
    np.testing.assert_allclose(log_probs, expected, rtol=1e-4, atol=1e-4)


def test_enough_beams_are_all_sids_whatever_the_codes(fitted):
    everything = np.array(list(itertools.product(*map(range, SIZES))), np.int32)
    trie = tries.build(everything, sizes=SIZES)
    beams = generator.predict_sids(
        fitted=fitted, trie=trie, pieces=PIECES[:2], beams=60, batch_size=8
    )
    assert all(len(np.unique(sids, axis=0)) == 60 for sids in beams.sids)
    np.testing.assert_allclose(np.exp(beams.log_probs).sum(axis=1), 1, rtol=1e-4)


def test_a_file_gives_it_back_where_its_module_is_imported(fitted, tmp_path):
    path = tmp_path / "generator.safetensors"
    generator.save(path, fitted)
    again = generator.load(path)
    assert (again.config, again.version) == (fitted.config, fitted.version)
    jax.tree.map(np.testing.assert_array_equal, again.params, jax.device_get(fitted.params))
    module = sys.modules.pop("bag_of_pieces")
    with pytest.raises(InputError, match=r"nothing has imported bag_of_pieces"):
        generator.load(path)
    sys.modules["bag_of_pieces"] = module


def test_its_exported_programs_are_the_search_and_the_scores(fitted):
    trie = tries.build(SIDS, sizes=SIZES)
    program = stablehlo.search_program(fitted, beams=BEAMS, forms=tries.forms(trie))
    tokens = np.zeros((3, 8), np.int32)
    for row in range(3):
        tokens[row, : len(PIECES[row])] = PIECES[row]
    sids, log_probs = jax.jit(program.call)(fitted.params, stablehlo.plain(trie), tokens)
    expected = generator.predict_sids(
        fitted=fitted, trie=trie, pieces=PIECES[:3], beams=BEAMS, batch_size=8
    )
    np.testing.assert_array_equal(sids, expected.sids)
    np.testing.assert_allclose(log_probs, expected.log_probs, atol=1e-5)
    scores = jax.jit(stablehlo.score_program(fitted).call)(fitted.params, tokens, sids)
    np.testing.assert_allclose(scores[..., -1], log_probs, atol=1e-5)


def test_weights_of_elsewhere_are_refused_where_it_has_none(config):
    with pytest.raises(InputError, match="generate.run.start is 'x', but BagOfPieces starts from"):
        config.pretrained("x", seed=0)
