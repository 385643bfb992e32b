import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsirm_jax.generator import code_start
from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.architectures.decoder_only import DecoderConfig
from dsirm_jax.generator.architectures.lora import Lora
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.quantizer.kinds.hierarchical_kmeans import BranchingCodebook
from dsirm_jax.quantizer.model import Codebook

EMBEDDING = np.array([[9.0, 9.0], [1.0, 0.0], [0.0, 2.0], [-1.0, 4.0]], np.float32)
PIECES = [[1, 2], [3], [], [1, 1, 2, 3]]
SIDS = np.array([[0, 1], [0, 0], [2, 0], [2, 1]], np.int32)


def test_titles_of_a_code_by_hand():
    first, second = code_start.title_directions(EMBEDDING, PIECES, SIDS, sizes=(4, 2))
    titles = [[0.5, 1.0], [-1.0, 4.0], [0.0, 0.0], [0.25, 1.5]]
    halves = [np.mean([titles[0], titles[1]], axis=0), [0, 0], [0.125, 0.75], [0, 0]]
    np.testing.assert_allclose(first, halves)
    np.testing.assert_allclose(second, [[-0.5, 2.0], [0.375, 1.25]])
    assert first.dtype == np.float32


def test_rows_point_from_their_mean_and_keep_their_length():
    fresh = np.array([[3.0, 0.0], [1.0, 2.0], [-1.0, 0.0], [1.0, -2.0]], np.float32)
    # Deviations from (1, 0) have a length of 2; of the directions known, the mean is (1, 1).
    towards = np.array([[4.0, 5.0], [0.0, 0.0], [-2.0, -3.0], [1.0, 1.0]], np.float32)
    rows = code_start.pointed(fresh, towards)
    expected = [[1 + 1.2, 1.6], [1.0, 2.0], [1 - 1.2, -1.6], [1.0, -2.0]]
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    nothing = code_start.pointed(fresh, np.zeros_like(fresh))
    np.testing.assert_array_equal(nothing, fresh)


def book(words):
    return Codebook(
        codewords=jnp.asarray(words), count=jnp.ones(len(words)), total=jnp.asarray(words)
    )


@pytest.mark.parametrize("width", [3, 7], ids=["as wide", "wider"])
def test_codewords_are_turned_and_keep_their_angles(width):
    rng = np.random.default_rng(0)
    words = [rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(2, 3)).astype(np.float32)]
    books = tuple(map(book, words))
    first, second = code_start.codeword_directions(books, SIDS, width=width, seed=1)
    assert first.shape == (4, width) and second.shape == (2, width)
    assert not first[[1, 3]].any()  # no item has these codes
    found = np.concatenate([first[[0, 2]], second])
    expected = np.concatenate([words[0][[0, 2]], words[1]])
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, rtol=1e-5, atol=1e-5)
    again = code_start.codeword_directions(books, SIDS, width=width, seed=1)
    np.testing.assert_array_equal(again[0], first)
    other = code_start.codeword_directions(books, SIDS, width=width, seed=2)
    assert not np.allclose(other[0], first)


def test_codewords_of_more_dimensions_are_projected():
    rng = np.random.default_rng(0)
    books = tuple(book(rng.normal(size=(size, 400)).astype(np.float32)) for size in (4, 2))
    first, _ = code_start.codeword_directions(books, SIDS, width=100, seed=0)
    words = np.asarray(books[0].codewords)[[0, 2]]
    shorter = np.linalg.norm(first[[0, 2]], axis=1) / np.linalg.norm(words, axis=1)
    np.testing.assert_allclose(shorter, 0.5, atol=0.1)


def test_codewords_that_differ_by_the_codes_before_are_averaged():
    root = np.eye(3, dtype=np.float32)
    below = np.array([[1, 0, 0], [0, 2, 0], [0, 0, 4]], np.float32)
    branches = BranchingCodebook(codewords=below, first=np.array([0, 2, 2, 3], np.int32), size=2)
    sids = np.array([[0, 0], [0, 1], [2, 0], [2, 0]], np.int32)
    _, found = code_start.codeword_directions((book(root), branches), sids, width=3, seed=0)
    means = book(np.array([[1 / 3, 0, 8 / 3], [0, 2, 0]], np.float32))
    _, expected = code_start.codeword_directions((book(root), means), sids, width=3, seed=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


DECODER = DecoderConfig(
    emb_dim=8, num_heads=2, num_kv_heads=2, head_dim=4, mlp_dim=8, num_layers=1,
    text_vocab_size=20, sid_sizes=(3, 4, 5),
)  # fmt: skip
T5 = T5Config(
    emb_dim=8, num_heads=2, head_dim=4, mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1,
    text_vocab_size=20, sid_sizes=(3, 4, 5),
)  # fmt: skip
ARCHITECTURES = {
    "decoder": DECODER,
    "t5": T5,
    "t5 1.0": dataclasses.replace(T5, logits_via_embedding=True),
    "lora": Lora(config=DECODER, rank=2),
}


@pytest.mark.parametrize("config", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_rows_of_codes_change_and_nothing_else(config):
    params = init_params(config, seed=0)
    rng = np.random.default_rng(0)
    directions = tuple(rng.normal(size=(size, 8)).astype(np.float32) for size in (3, 4, 5))
    directions[1][2] = 0
    started = code_start.started(config, params, directions)
    before, after = (config.parted(tree)[1] for tree in (params, started))
    for level, towards in enumerate(directions):
        if (name := f"codes_{level}") in before:
            fresh = np.asarray(before[name])
            np.testing.assert_allclose(after[name], code_start.pointed(fresh, towards), rtol=1e-6)
            np.testing.assert_array_equal(after[name][2] == fresh[2], level == 1)
    restored = config.joined(config.parted(started)[0], before)
    jax.tree.map(np.testing.assert_array_equal, restored, params)
    assert np.shape(config.text_embedding(params)) == (20, 8)
