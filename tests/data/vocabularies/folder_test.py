import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from dsirm_jax.data.vocabularies import folder
from dsirm_jax.data.vocabularies.sentence_piece import SentencePiece
from dsirm_jax.data.vocabularies.tokenizer_json import TokenizerJson
from dsirm_jax.data.vocabularies.trimming import Trimmed, trimmed
from dsirm_jax.io.errors import InputError
from tests.data.vocabularies import tiny

TEXTS = ["red lamp", "", "xx-large size 日本", tiny.EOS, "<pad>"]
GEMMA = ((2,), ())


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Folders of tokenizers, by kind."""
    kinds = {
        "byte-level": tiny.byte_level,
        "byte fallback": tiny.byte_fallback,
        "SentencePiece": tiny.sentence_piece,
        "no bytes": lambda path: tiny.sentence_piece(path, byte_fallback=False),
    }
    folders = {kind: tmp_path_factory.mktemp("kind") for kind in kinds}
    return {kind: (kinds[kind](path), path) for kind, path in folders.items()}


def content(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize("kind", ["byte-level", "byte fallback", "SentencePiece", "no bytes"])
def test_the_files_are_the_tokenizers_own(sources, tmp_path, kind):
    vocabulary, source = sources[kind]
    marks = None if isinstance(vocabulary, TokenizerJson) else GEMMA
    written = folder.write(tmp_path / "new", tokenizer=source, marks=marks)
    own = content(source)
    own.pop("tokenizer.vocab", None)  # of the trainer
    described = {} if marks is None else {"vocabulary.json": b'{"marks": [[2], []]}\n'}
    assert content(tmp_path / "new") == own | described
    folder.copy(tmp_path / "new", tmp_path / "second")
    assert folder.read(tmp_path / "second").size == written.size
    assert content(tmp_path / "second") == content(tmp_path / "new")
    assert {path.name for path in folder.files(tmp_path / "second")} == {*own, *described}


@pytest.mark.parametrize("kind", ["byte fallback", "SentencePiece", "no bytes"])
def test_ids_whose_padding_is_0_are_as_they_are(sources, tmp_path, kind):
    vocabulary, source = sources[kind]
    marks = None if isinstance(vocabulary, TokenizerJson) else GEMMA
    read = folder.write(tmp_path, tokenizer=source, marks=marks)
    assert isinstance(read, type(vocabulary))
    assert (read.size, read.padding, read.marks) == (vocabulary.size, 0, GEMMA)
    assert read.encode(TEXTS) == vocabulary.encode(TEXTS)


def test_other_ids_are_one_more_and_0_pads(sources, tmp_path):
    vocabulary, source = sources["byte-level"]
    read = folder.write(tmp_path, tokenizer=source)
    assert isinstance(read, Trimmed)
    assert (read.size, read.padding) == (vocabulary.size + 1, 0)
    assert read.kept[0] == vocabulary.padding == vocabulary.marks[1][0]
    for ours, own in zip(read.encode(TEXTS), vocabulary.encode(TEXTS), strict=True):
        assert ours == [id_ + 1 for id_ in own]
    assert read.marks == tuple(tuple(id_ + 1 for id_ in ids) for ids in vocabulary.marks)


def test_padding_that_texts_use_is_no_padding(tmp_path):
    """A piece of text at 0, and what is unknown."""
    pieces = {"!": 0, "red": 1, "[UNK]": 2}
    split = pre_tokenizers.Whitespace()
    for first, pad, text in (("[UNK]", "!", "red !"), ("!", "!", "red é")):
        tokenizer = Tokenizer(models.WordLevel(pieces, unk_token=first))
        tokenizer.pre_tokenizer = split
        tiny.written(tokenizer, tmp_path, pad=pad)
        read = folder.read(tmp_path)
        assert read.size == 4 and read.encode([text]) == [[2, 1]]


def test_padding_that_is_a_mark_is_no_padding(tmp_path):
    whole = tiny.sentence_piece(tmp_path, pad=-1)  # its 0 is what is unknown
    assert whole.padding is None
    read = folder.write(tmp_path / "new", tokenizer=tmp_path / "tokenizer.model")
    assert read.marks == ((), ()) and read.encode(["red"])[0] == [
        id_ + 1 for id_ in whole.encode(["red"])[0]
    ]
    marked = tmp_path / "marked"
    tiny.sentence_piece(tmp_path, pad=0)
    read = folder.write(marked, tokenizer=tmp_path / "tokenizer.model", marks=((0,), ()))
    assert read.marks == ((1,), ())


@given(texts=st.lists(st.sampled_from(tiny.LINES[:6]), max_size=4))
@settings(max_examples=15)
def test_kept_ids_come_back(sources, tmp_path_factory, texts):
    for kind in ("byte-level", "byte fallback", "SentencePiece"):
        vocabulary, source = sources[kind]
        marks = None if isinstance(vocabulary, TokenizerJson) else GEMMA
        new, kept = tmp_path_factory.mktemp("new"), trimmed(vocabulary, texts)
        read = folder.write(new, tokenizer=source, marks=marks, kept=kept)
        np.testing.assert_array_equal(read.kept, kept)
        small = Trimmed(whole=vocabulary, kept=kept)
        assert read.encode(TEXTS) == small.encode(TEXTS)
        assert (read.marks, read.specials) == (small.marks, small.specials)


@given(text=st.text(st.characters(codec="utf-8"), max_size=8))
@settings(max_examples=30)
def test_bytes_that_a_tokenizer_lacks_are_left_out_of_texts(lacking, text):
    """Whole or trimmed, it reads what is left, as the library does."""
    whole, folders = lacking
    readings = [folder.read(path) for path in folders]
    (expected,) = whole.encode([text])
    spelt = b"".join(map(whole.spelling, expected))
    for reading in readings:
        (pieces,) = reading.encode([text])
        assert all(0 < piece < reading.size for piece in pieces)
        assert b"".join(map(reading.spelling, pieces)) == spelt


@pytest.fixture(scope="module")
def lacking(tmp_path_factory):
    """A tokenizer without bytes that its few lines did not have, and folders of it."""
    source, *folders = (tmp_path_factory.mktemp("lacking") for _ in range(3))
    whole = tiny.byte_level(source, alphabet=["a"])
    assert 200 < whole.byte_pieces.count(-1) < 256
    folder.write(folders[0], tokenizer=source)
    folder.write(folders[1], tokenizer=source, kept=trimmed(whole, ["red"]))
    return whole, folders


def test_a_model_of_another_name_and_a_folder_of_another_vocabulary(sources, tmp_path):
    _, source = sources["SentencePiece"]
    model = tmp_path / "mine.model"
    model.write_bytes((source / "tokenizer.model").read_bytes())
    _, json_source = sources["byte-level"]
    folder.write(tmp_path / "new", tokenizer=json_source)
    read = folder.write(tmp_path / "new", tokenizer=model, marks=((), (1,)))
    assert {*content(tmp_path / "new")} == {"tokenizer.model", "vocabulary.json"}
    assert isinstance(read, SentencePiece) and read.marks == ((), (1,))
    folder.write(tmp_path / "new", tokenizer=json_source / "tokenizer.json")
    assert {*content(tmp_path / "new")} == {"tokenizer.json", "tokenizer_config.json"}


@pytest.mark.parametrize(
    ("kind", "described", "message"),
    [
        ("byte-level", "[]", "vocabulary.json: no object with"),
        ("byte-level", "{", "vocabulary.json: no JSON"),
        ("byte-level", {"keeps": []}, "vocabulary.json: no object with"),
        ("byte-level", {"marks": [[], []]}, "tokenizer.json says those itself"),
        ("SentencePiece", {}, r'write {"marks": \[\[\], \[\]\]} into it'),
        ("SentencePiece", {"marks": [[2]]}, '"marks" is .* give two lists'),
        ("SentencePiece", {"marks": [[2], [True]]}, r'"marks" has True, but .* below \d+'),
        ("SentencePiece", {"marks": [[9999], []]}, '"marks" has 9999'),
        ("byte-level", {"kept": []}, '"kept" is no list of ids'),
        ("byte-level", {"kept": [0, -1]}, '"kept" has -1'),
        ("byte-level", {"kept": [0, 4, 5, 4]}, '"kept" has an id twice'),
        ("byte-level", {"kept": [0, 1, 2]}, '"kept" lacks 256 pieces'),
        ("no bytes", {"marks": [[], []], "kept": [0, 1, 2]}, r'"kept" lacks \d+ pieces'),
    ],
    ids=[
        "no object",
        "no JSON",
        "unknown",
        "marks of a JSON",
        "no marks",
        "one list",
        "a truth value",
        "a mark too high",
        "none kept",
        "below 0",
        "twice",
        "without bytes",
        "a tokenizer without bytes",
    ],
)
def test_what_is_wrong_is_named(sources, tmp_path, kind, described, message):
    _, source = sources[kind]
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = described if isinstance(described, str) else json.dumps(described)
    (tmp_path / "vocabulary.json").write_text(text)
    with pytest.raises(InputError, match=message):
        folder.read(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match="none of tokenizer.json, tokenizer.model"):
        folder.read(tmp_path)
    with pytest.raises(InputError, match="absent.model: no such file"):
        folder.write(tmp_path / "new", tokenizer=tmp_path / "absent.model")
    (tmp_path / "spiece.model").write_text("no model")
    (tmp_path / "vocabulary.json").write_text('{"marks": [[], []]}')
    with pytest.raises(InputError, match="spiece.model: no SentencePiece model"):
        folder.read(tmp_path)
