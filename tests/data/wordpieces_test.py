import shutil
from pathlib import Path

import pytest

from dsirm_jax.data import wordpieces

VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "Red", "shoe", "##s")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY))
    return tmp_path


def test_texts_are_marked_prefixed_and_cut(folder):
    tokenizer = wordpieces.read_tokenizer(folder)
    texts = ["Red shoes", "", "red red red"]
    assert wordpieces.tokenize(tokenizer, texts, prefix="", max_pieces=4) == [
        [2, 5, 7, 3],  # the end mark stays
        [2, 3],
        [2, 5, 5, 3],
    ]
    assert wordpieces.tokenize(tokenizer, ["shoe"], prefix="red ", max_pieces=9) == [[2, 5, 7, 3]]
    assert wordpieces.tokenize(tokenizer, texts[:1], prefix="", max_pieces=9) == [[2, 5, 7, 8, 3]]


def test_a_cased_vocabulary_says_so(folder):
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    tokenizer = wordpieces.read_tokenizer(folder)
    assert wordpieces.tokenize(tokenizer, ["Red red"], prefix="", max_pieces=9) == [[2, 6, 5, 3]]


def test_a_tokenizer_file_wins_and_pads_nothing(folder, tmp_path_factory):
    tokenizer = wordpieces.read_tokenizer(folder)
    tokenizer.enable_padding(length=12)
    tokenizer.enable_truncation(3)
    other = tmp_path_factory.mktemp("other")
    tokenizer.save(str(other / "tokenizer.json"))
    shutil.copy(Path(folder) / "vocab.txt", other)
    assert wordpieces.tokenizer_file(other).name == "tokenizer.json"
    again = wordpieces.read_tokenizer(other)
    assert wordpieces.tokenize(again, ["red shoes"], prefix="", max_pieces=9) == [[2, 5, 7, 8, 3]]
