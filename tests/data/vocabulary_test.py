from __future__ import annotations

import numpy as np
import pytest
import sentencepiece

from dsirm_jax.data.vocabulary import rectangle, take_vocabulary, train_vocabulary
from dsirm_jax.io.errors import InputError

WORDS = [
    "red",
    "blue",
    "green",
    "steel",
    "wool",
    "shoe",
    "lamp",
    "cable",
    "charger",
    "case",
    "phone",
    "without",
    "for",
    "with",
    "size",
]


def texts(rows=400):
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, size=5)) for _ in range(rows)]


def processor(path):
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def test_ids_are_those_of_t5(tmp_path):
    size = train_vocabulary(texts=iter(texts()), size=330, path=tmp_path / "v.model", seed=0)
    model = processor(tmp_path / "v.model")
    assert (model.pad_id(), model.eos_id(), model.unk_id(), model.bos_id()) == (0, 1, 2, -1)
    assert model.vocab_size() == size <= 330


def test_case_is_folded_and_unseen_characters_are_spelt_in_bytes(tmp_path):
    train_vocabulary(texts=iter(texts()), size=330, path=tmp_path / "v.model", seed=0)
    model = processor(tmp_path / "v.model")
    assert model.encode("Red SHOE") == model.encode("red shoe")
    assert len(model.encode("red shoe")) == 2
    pieces = model.encode("日本 📚")
    assert 2 not in pieces
    assert model.decode(pieces) == "日本 📚"


def test_same_texts_and_seed_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        train_vocabulary(texts=iter(texts()), size=330, path=tmp_path / name, seed=3)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "lines",
    [["a"], ["lamp"], ["red shoe", "blue shoe"]],
    ids=["a letter", "a word", "two lines"],
)
def test_a_size_that_little_text_cannot_fill_shrinks(tmp_path, lines):
    size = train_vocabulary(texts=iter(lines), size=8000, path=tmp_path / "v.model", seed=0)
    assert 256 < size < 400
    assert (
        processor(tmp_path / "v.model").decode(processor(tmp_path / "v.model").encode("red lamp"))
        == "red lamp"
    )


@pytest.mark.parametrize(
    ("lines", "size"), [([], 1000), (["red shoe"], 100)], ids=["no lines", "no room"]
)
def test_nothing_to_learn_or_no_room(tmp_path, lines, size):
    with pytest.raises(InputError, match="vocabulary_size"):
        train_vocabulary(texts=iter(lines), size=size, path=tmp_path / "v.model", seed=0)
    assert not list(tmp_path.iterdir())


def test_take_a_vocabulary(tmp_path):
    size = train_vocabulary(texts=iter(texts()), size=330, path=tmp_path / "v.model", seed=0)
    assert take_vocabulary(vocabulary=tmp_path / "v.model", path=tmp_path / "copy") == size
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "v.model").read_bytes()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts()),
        model_prefix=str(tmp_path / "other"),
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(InputError, match="pad_id=0"):
        take_vocabulary(vocabulary=tmp_path / "other.model", path=tmp_path / "x")
    (tmp_path / "text.model").write_text("no model")
    with pytest.raises(InputError, match="no SentencePiece model"):
        take_vocabulary(vocabulary=tmp_path / "text.model", path=tmp_path / "x")
    with pytest.raises(InputError, match="no such file"):
        take_vocabulary(vocabulary=tmp_path / "gone.model", path=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_texts_are_cut_or_filled_up_to_a_rectangle():
    array = rectangle([[3, 4], [], [5, 6, 7, 8]], shape=(4, 3))
    np.testing.assert_array_equal(array, [[3, 4, 0], [0, 0, 0], [5, 6, 7], [0, 0, 0]])
    assert array.dtype == np.int32
    np.testing.assert_array_equal(rectangle([[3]], shape=(2, 2), beyond=-1), [[3, -1], [-1, -1]])
