import dataclasses

import jax
import numpy as np
import pytest

from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.predict import predict_sids
from dsirm_jax.generator.score import score_pairs
from dsirm_jax.relevance.fitted import plain_params
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import score
from dsirm_jax.serving.bundle.contents import open_bundle
from dsirm_jax.serving.bundle.manifest import FULL
from dsirm_jax.serving.formats import stablehlo
from dsirm_jax.sids import trie as tries
from tests.serving import tiny


@pytest.fixture(scope="module")
def models(made):
    return open_bundle(made).models


@pytest.fixture(scope="module")
def programs(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    forms = (tries.BITMAP, tries.RANGES, tries.RANGES)
    programs = stablehlo.programs_of(models, beams=tiny.BEAMS, forms=forms)
    stablehlo.write_programs(folder, programs)
    assert {path.name for path in folder.iterdir()} == {
        *("encoder.stablehlo", "search.stablehlo", "score.stablehlo"),
        *("head-full.stablehlo", "head-dense_only.stablehlo"),
    }
    return folder


def tokens_of(models, queries):
    tokens = np.zeros((len(queries), tiny.PIECES), np.int32)
    for row, pieces in enumerate(models.vocabulary.encode(queries)):
        tokens[row, : len(pieces)] = pieces[: tiny.PIECES]
    return tokens


@pytest.mark.parametrize("items", [1, 300])
def test_a_search_takes_any_trie_and_any_batch(programs, models, items):
    random = np.random.default_rng(items)
    sids = np.stack([random.integers(size, size=items) for size in tiny.SIZES], axis=1)
    trie = tries.build(sids, sizes=tiny.SIZES, kind=(tries.BITMAP, tries.RANGES, tries.RANGES))
    search = stablehlo.read_program(programs, stablehlo.SEARCH)
    queries = tiny.QUERIES[: min(items, 7)]
    params = models.generator.params
    found, log_probs = search(params, stablehlo.plain(trie), tokens_of(models, queries))
    expected = predict_sids(
        fitted=models.generator,
        trie=trie,
        pieces=models.vocabulary.encode(queries),
        beams=tiny.BEAMS,
        batch_size=8,
    )
    np.testing.assert_array_equal(found, expected.sids)
    np.testing.assert_allclose(log_probs, expected.log_probs, atol=1e-5)


def test_scores_are_those_of_pairs(programs, models):
    random = np.random.default_rng(0)
    sids = np.stack([random.integers(size, size=(3, 5)) for size in tiny.SIZES], axis=-1)
    program = stablehlo.read_program(programs, stablehlo.SCORE)
    asked = sids.astype(np.int32)
    found = program(models.generator.params, tokens_of(models, tiny.QUERIES[:3]), asked)
    expected = score_pairs(
        fitted=models.generator,
        pieces=models.vocabulary.encode(tiny.QUERIES[:3]),
        query_index=np.repeat(np.arange(3), 5),
        sids=sids.reshape(-1, 3),
        batch_size=4,
    )
    np.testing.assert_allclose(found.reshape(-1, 3), expected, atol=1e-5)


def test_heads_and_vectors_are_those_of_the_models(programs, models):
    head = models.heads[FULL]
    values = np.random.default_rng(0).normal(size=(9, len(head.features))).astype(np.float32)
    program = stablehlo.read_program(programs, f"head-{FULL}")
    found = program(plain_params(head), values)
    table = FeatureTable(names=head.features, groups=head.features, values=values)
    np.testing.assert_allclose(found, score(head, table), atol=1e-6)
    tokens = tokens_of(models, tiny.QUERIES[:2])
    vectors = stablehlo.read_program(programs, stablehlo.ENCODER)(models.encoder.params, tokens)
    expected = models.encoder.module.apply(models.encoder.params, tokens)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_program_is_for_all_chips_and_does_not_grow_with_the_parameters(programs, models):
    contents = stablehlo.program_file(programs, stablehlo.SCORE).read_bytes()
    assert jax.export.deserialize(bytearray(contents)).platforms == ("cpu", "cuda", "tpu")
    config = dataclasses.replace(models.generator.config, text_vocab_size=50_000)
    params = jax.eval_shape(lambda: init_params(config, seed=0))
    larger = dataclasses.replace(models.generator, config=config, params=params)
    assert abs(len(stablehlo.score_program(larger).serialize()) - len(contents)) < 500
