"""A bundle whose generator is a language model with its own vocabulary."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from dsirm_jax.data.vocabularies import folder
from dsirm_jax.data.vocabularies.trimming import trimmed
from dsirm_jax.generator.predict import predict_sids
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving import Scorer, ScorerSettings, verify
from dsirm_jax.serving.bundle.contents import open_bundle
from dsirm_jax.serving.formats import saved_model, stablehlo
from dsirm_jax.serving.update import update
from dsirm_jax.serving.verification import answers as forms
from dsirm_jax.serving.verification.comparison import comparison_table
from dsirm_jax.serving.verification.cutting import cut_otherwise
from tests.data.vocabularies import tiny as vocabularies
from tests.serving import tiny

PROMPT = "find: {query}"
NEW = ["green phone case without stand", "ruž mug 64 oz <|end|>"]


@pytest.fixture(scope="session")
def own(tmp_path_factory):
    """A byte-level BPE, trimmed to the pieces of the cached queries."""
    source, own = tmp_path_factory.mktemp("tokenizer"), tmp_path_factory.mktemp("own")
    whole = vocabularies.byte_level(source)
    texts = [PROMPT.replace("{query}", query) for query in tiny.QUERIES]
    folder.write(own, tokenizer=source, kept=trimmed(whole, texts))
    return own


@pytest.fixture(scope="session")
def path(own, tmp_path_factory):
    place = tmp_path_factory.mktemp("own") / "bundle"
    return tiny.make(place, prompt=PROMPT, own_vocabulary=own)


@pytest.fixture(scope="module")
def opened(path):
    return open_bundle(path)


def own_pieces(own, texts):
    """Returns what is read of texts, by the tokenizer's own library."""
    tokenizer = Tokenizer.from_file(str(own / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    kept = json.loads((own / "vocabulary.json").read_text())["kept"]
    number = {id_: place for place, id_ in enumerate(kept) if place}
    letters = tokenizer.get_vocab(with_added_tokens=False)
    rows = []
    for text in texts:
        ids = tokenizer.encode(PROMPT.replace("{query}", text), add_special_tokens=True).ids
        spelt = []
        for id_ in ids:
            name = tokenizer.id_to_token(id_)
            spelt += [id_] if id_ in number else [letters[letter] for letter in name]
        row = [number[id_] for id_ in spelt]
        whole = len(row) <= tiny.PIECES
        rows.append(row if whole else [*row[: tiny.PIECES - 1], row[-1]])  # which ends a text
    return rows


def beams(opened, own, texts):
    return predict_sids(
        fitted=opened.models.generator,
        trie=opened.catalogue.trie,
        pieces=own_pieces(own, texts),
        beams=tiny.BEAMS,
        batch_size=8,
    )


def test_the_tokenizers_files_are_in_it_and_sealed(path, own, opened):
    for file in own.iterdir():
        assert (path / "model/vocabulary" / file.name).read_bytes() == file.read_bytes()
        assert f"model/vocabulary/{file.name}" in opened.manifest.files
    assert opened.manifest.settings.own_vocabulary
    assert opened.models.split_in_tensorflow is None
    assert not list(cut_otherwise(opened.models, tiny.QUERIES))  # the encoder's reading alone


def test_a_bundle_says_what_is_wrong_with_its_vocabulary(path, opened, tmp_path):
    from dsirm_jax.serving.bundle.models import read_models

    for file in (path / "model").iterdir():
        if file.name != "vocabulary":
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(InputError, match="vocabulary: none of tokenizer.json"):
        read_models(tmp_path, manifest=opened.manifest)


def test_a_scorer_reads_texts_as_the_tokenizer_does(opened, own):
    texts = [tiny.QUERIES[3], *NEW]
    expected = beams(opened, own, texts)
    with Scorer(opened, settings=ScorerSettings(deadline=600.0)) as scorer:
        for row, text in enumerate(texts):
            answer = scorer.query_sids(text)
            np.testing.assert_array_equal(answer.sids, expected.sids[row])
            np.testing.assert_allclose(
                answer.probabilities, np.exp(expected.log_probs[row]), atol=1e-5
            )


def test_tensorflow_takes_pieces(opened, own, tmp_path):
    import tensorflow as tf

    programs = stablehlo.programs_of(
        opened.models, beams=tiny.BEAMS, forms=opened.manifest.settings.trie
    )
    saved_model.write_saved_model(tmp_path / "1", opened, programs=programs)
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    texts = [*tiny.QUERIES[:3], tiny.QUERIES[0]]
    tokens = np.zeros((4, tiny.PIECES), np.int32)
    for row, pieces in zip(tokens, own_pieces(own, texts), strict=True):
        row[: len(pieces)] = pieces
    expected = beams(opened, own, texts)
    found = signatures["query_sids"](pieces=tf.constant(tokens))
    np.testing.assert_array_equal(found["sids"], expected.sids)
    np.testing.assert_allclose(found["log_probs"], expected.log_probs, atol=1e-5)
    assert "query_vector" in signatures  # of texts, which the encoder reads

    sample = verify.sample_pairs(opened, pairs=4)
    sample = sample._replace(queries=texts)
    names = saved_model.given_features(opened.models.heads["full"], levels=len(tiny.SIZES))
    given = {saved_model.tensor_name(n): of for n, of in zip(names, sample.inputs.T, strict=True)}
    probability = signatures["relevance"](
        pieces=tf.constant(tokens),
        sid=tf.constant(sample.sids),
        **{name: tf.constant(values) for name, values in given.items()},
    )["probability"]
    answers, _ = forms.head_answers(opened, sample, forms.in_memory(opened, sample, batch=4))
    np.testing.assert_allclose(probability, answers.probability, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["byte-level", "SentencePiece"])
def test_all_forms_agree_before_and_after_an_update(kind, own, tmp_path):
    """A SentencePiece model without marks is in the SavedModel, which takes texts then."""
    if kind == "SentencePiece":
        vocabularies.sentence_piece(tmp_path)
        own = tmp_path / "own"
        folder.write(own, tokenizer=tmp_path / "tokenizer.model")
    path = tiny.make(tmp_path / "bundle", whole=True, prompt=PROMPT, own_vocabulary=own)
    before = verify.verify(path, pairs=8, batches=(1, 7))
    items = tmp_path / "items.parquet"
    pq.write_table(pa.Table.from_pylist(tiny.items(60, 75)), items)
    update(path, items=str(items), queries=None)
    after = verify.verify(path, pairs=8, batches=(7,))
    for of in (*before, *after):
        assert of.agrees, comparison_table([of])
