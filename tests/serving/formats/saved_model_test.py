"""A SavedModel is not only written: TensorFlow runs every signature of one."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from dsirm_jax.encoder import hugging_face
from dsirm_jax.encoder.bert import NO_PIECE
from dsirm_jax.generator.predict import predict_sids
from dsirm_jax.serving import verify
from dsirm_jax.serving.bundle.contents import open_bundle
from dsirm_jax.serving.bundle.manifest import FULL
from dsirm_jax.serving.formats import portable, saved_model, stablehlo
from dsirm_jax.serving.verification import answers as forms
from tests.serving import tiny
from tests.serving.verify_test import BERT


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


@pytest.fixture(scope="module")
def opened(made):
    return open_bundle(made)


@pytest.fixture(scope="module")
def signatures(tf, opened, tmp_path_factory):
    programs = programs_with(opened, beams=tiny.BEAMS)
    return written(tf, opened, tmp_path_factory.mktemp("saved") / "1", programs=programs)


def programs_with(opened, *, beams):
    forms = opened.manifest.settings.trie
    return stablehlo.programs_of(opened.models, beams=beams, forms=forms)


def written(tf, opened, folder, *, programs):
    saved_model.write_saved_model(folder, opened, programs=programs)
    return tf.saved_model.load(str(folder)).signatures


def test_the_programs_of_a_bundle_are_those_of_its_saved_model(tf, opened, tmp_path):
    """None is traced again: a search for two SIDs finds two, and vectors are doubled."""
    programs = programs_with(opened, beams=2)
    models = opened.models
    encoder = models.encoder

    class Twice:
        @staticmethod
        def apply(params, pieces):
            return 2 * encoder.module.apply(params, pieces)

    programs[stablehlo.ENCODER] = stablehlo.encoder_program(Twice, encoder.params)
    signatures = written(tf, opened, tmp_path / "1", programs=programs)
    queries = tf.constant(tiny.QUERIES[:3])
    assert signatures["query_sids"](query=queries)["sids"].shape == (3, 2, len(tiny.SIZES))
    found = signatures["query_vector"](query=queries)["vector"]
    pieces = forms._encoder_texts(opened.models.encoder, tiny.QUERIES[:3])
    expected = 2 * encoder.module.apply(encoder.params, pieces)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_tensorflow_writes_the_sids_of_queries(tf, signatures, opened):
    generator, queries = opened.models.generator, tiny.QUERIES[:5]
    found = signatures["query_sids"](query=tf.constant(queries))
    expected = predict_sids(
        fitted=generator,
        trie=opened.catalogue.trie,
        pieces=opened.models.vocabulary.encode(queries),
        beams=tiny.BEAMS,
        batch_size=8,
    )
    np.testing.assert_array_equal(found["sids"], expected.sids)
    np.testing.assert_allclose(found["log_probs"], expected.log_probs, atol=1e-5)


def test_tensorflow_reads_queries_within_the_prompt(tf, opened, tmp_path):
    models = opened.models
    generator = dataclasses.replace(models.generator, prompt="a {query} lamp")
    models = dataclasses.replace(models, generator=generator)
    bundle = SimpleNamespace(models=models, manifest=opened.manifest, catalogue=opened.catalogue)
    programs = programs_with(opened, beams=tiny.BEAMS)
    signatures = written(tf, bundle, tmp_path / "1", programs=programs)
    queries = [*tiny.QUERIES[:4], " ".join(tiny.QUERIES[:4])]
    pieces = models.vocabulary.encode([f"a {query} lamp" for query in queries])
    (ending,) = models.vocabulary.encode(["lamp"])
    most = generator.max_pieces
    assert len(pieces[-1]) > most
    pieces[-1] = pieces[-1][: most - len(ending)] + ending
    expected = predict_sids(
        fitted=models.generator,
        trie=opened.catalogue.trie,
        pieces=pieces,
        beams=tiny.BEAMS,
        batch_size=8,
    )
    found = signatures["query_sids"](query=tf.constant(queries))
    np.testing.assert_array_equal(found["sids"], expected.sids)
    np.testing.assert_allclose(found["log_probs"], expected.log_probs, atol=1e-5)
    vectors = signatures["query_vector"](query=tf.constant(queries))["vector"]
    tokens = forms._encoder_texts(models.encoder, queries)  # of the queries alone
    alone = models.encoder.module.apply(models.encoder.params, tokens)
    np.testing.assert_allclose(vectors, alone, atol=1e-5)


def test_tensorflow_makes_the_vectors_of_queries(tf, signatures, opened):
    queries, models = tiny.QUERIES[:5], opened.models
    tokens = forms._encoder_texts(opened.models.encoder, queries)
    found = signatures["query_vector"](query=tf.constant(queries))["vector"]
    expected = models.encoder.module.apply(models.encoder.params, tokens)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_tensorflow_gives_the_probabilities_of_pairs(tf, signatures, opened):
    sample = verify.sample_pairs(opened, pairs=6)
    head = opened.models.heads[FULL]
    names = saved_model.given_features(head, levels=len(tiny.SIZES))
    given = {saved_model.tensor_name(n): of for n, of in zip(names, sample.inputs.T, strict=True)}
    found = signatures["relevance"](
        query=tf.constant(sample.queries),
        sid=tf.constant(sample.sids),
        **{name: tf.constant(values) for name, values in given.items()},
    )
    expected, _ = forms.head_answers(opened, sample, forms.in_memory(opened, sample, batch=6))
    np.testing.assert_allclose(found["probability"], expected.probability, atol=1e-5)


def test_tensorflow_runs_an_encoder_with_the_exact_gelu(tf):
    encoder = hugging_face.read_folder(BERT)
    assert encoder.module.config.hidden_act == "gelu"
    pieces = np.array([[2, 5, 6, 3], [2, 7, 3, NO_PIECE]], np.int32)
    program = stablehlo.encoder_program(encoder.module, encoder.params)
    run = tf.function(portable.as_tensorflow(program), autograph=False)
    found = run(jax.tree.map(tf.constant, encoder.params), tf.constant(pieces))
    expected = encoder.module.apply(encoder.params, pieces)
    np.testing.assert_allclose(found, expected, atol=2e-6)
