from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.data.vocabularies.protocol import Vocabulary
from dsirm_jax.data.vocabularies.trimming import (
    Trimmed,
    all_kept,
    kept_rows,
    text_rows,
    trimmed,
)
from dsirm_jax.io.errors import InputError
from tests.data.vocabularies import tiny

KINDS = {
    "byte-level": tiny.byte_level,
    "byte fallback": tiny.byte_fallback,
    "SentencePiece": tiny.sentence_piece,
}
WORDS = st.sampled_from([*tiny.LINES[:6], "red", " lamp", "xx-large size", tiny.EOS, "<eos>", "\n"])
# What no encoding has, such as half a surrogate pair, `data.text.clean` takes out of texts.
ANY = st.text(st.characters(codec="utf-8", exclude_characters="\x00\u2581"), max_size=12)
TEXTS = st.lists(st.one_of(WORDS, ANY, st.tuples(WORDS, ANY).map("".join)), max_size=6)


@pytest.fixture(scope="module", params=KINDS)
def vocabulary(request, tmp_path_factory):
    return KINDS[request.param](tmp_path_factory.mktemp("kind"))


@given(texts=TEXTS, others=TEXTS)
@settings(max_examples=60)
def test_pieces_are_the_same_but_for_their_numbers(vocabulary, texts, others):
    kept = trimmed(vocabulary, texts)
    small = Trimmed(whole=vocabulary, kept=kept)
    for pieces, whole in zip(small.encode(texts), vocabulary.encode(texts), strict=True):
        assert kept[pieces].tolist() == whole
    for pieces, whole in zip(small.encode(others), vocabulary.encode(others), strict=True):
        assert all(0 < piece < small.size for piece in pieces)
        assert tiny.decoded(vocabulary, kept[pieces]) == tiny.decoded(vocabulary, whole)
        assert b"".join(map(small.spelling, pieces)) == b"".join(map(vocabulary.spelling, whole))


@given(texts=TEXTS, order=st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_neither_order_nor_repetition_of_texts_counts(vocabulary, texts, order):
    kept = trimmed(vocabulary, texts)
    shuffled = [*texts, *texts]
    order.shuffle(shuffled)
    np.testing.assert_array_equal(trimmed(vocabulary, iter(shuffled)), kept)


def test_what_is_kept(vocabulary):
    assert isinstance(Trimmed(whole=vocabulary, kept=trimmed(vocabulary, [])), Vocabulary)
    without = trimmed(vocabulary, [])
    kept = trimmed(vocabulary, ["red lamp"])
    assert kept.dtype == np.int32 and kept[0] == vocabulary.padding
    assert (np.diff(kept[1:]) > 0).all()
    assert {*vocabulary.byte_pieces, *vocabulary.specials} == {*without.tolist()}
    (used,) = vocabulary.encode(["red lamp"])
    assert {*kept.tolist()} == {*without.tolist(), *used}
    assert {*used} - {*without.tolist()}
    small = Trimmed(whole=vocabulary, kept=kept)
    assert small.padding == 0
    for ids, whole in zip(small.marks, vocabulary.marks, strict=True):
        assert kept[list(ids)].tolist() == [*whole]
        assert 0 not in ids
    assert {kept[id_] for id_ in small.specials} == vocabulary.specials


def test_the_numbers_by_hand(tmp_path):
    vocabulary = tiny.byte_fallback(tmp_path)
    kept = trimmed(vocabulary, ["lamp red"])
    named = [vocabulary.tokenizer.id_to_token(id_) for id_ in kept]
    assert named[:5] == ["<pad>", "<eos>", "<bos>", "<unk>", "<0x00>"]
    assert named[260:] == ["\u2581red", "lamp"]
    small = Trimmed(whole=vocabulary, kept=kept)
    assert small.encode(["lamp red lamp", "la"]) == [
        [261, 260, 4 + ord(" "), 261],
        [4 + ord("l"), 4 + ord("a")],  # "la" was not kept
    ]


def test_padding_that_is_an_end_too_has_a_row_of_its_own(tmp_path):
    vocabulary = tiny.byte_level(tmp_path)  # pads with its end, which stands behind every text
    kept = trimmed(vocabulary, ["red"])
    assert (kept == vocabulary.padding).sum() == 2
    ((_, (end,)), ids) = (Trimmed(whole=vocabulary, kept=kept).marks, kept.tolist())
    assert end > 0 and ids[end] == ids[0] == vocabulary.padding


@pytest.mark.parametrize("pad", [None, tiny.CONTROL], ids=["no padding", "a special piece"])
def test_padding_that_no_text_uses(tmp_path, pad):
    vocabulary = tiny.byte_level(tmp_path, pad=pad)
    kept = trimmed(vocabulary, ["red"])
    assert kept[0] == 0  # the first special piece
    assert (kept == 0).sum() == (2 if pad is None else 1)


def test_rows_of_an_embedding(tmp_path):
    vocabulary = tiny.byte_level(tmp_path)
    kept = trimmed(vocabulary, ["red lamp"])
    table = np.arange(2 * (vocabulary.size + 3), dtype=np.float32).reshape(-1, 2)
    small = Trimmed(whole=vocabulary, kept=kept)
    ours, whole = small.encode(["red lamp"])[0], vocabulary.encode(["red lamp"])[0]
    np.testing.assert_array_equal(kept_rows(table, kept)[ours], table[whole])
    assert len(kept_rows(table, kept)) == small.size
    last = kept.max()
    with pytest.raises(InputError, match=f"a piece {last}, but the embedding has {last} rows"):
        kept_rows(table[:last], kept)


def test_a_vocabulary_without_bytes_is_refused(tmp_path):
    vocabulary = tiny.sentence_piece(tmp_path, byte_fallback=False)
    with pytest.raises(InputError, match="none for some bytes"):
        trimmed(vocabulary, ["red"])


def test_all_pieces_behind_a_row_that_pads(vocabulary):
    kept = all_kept(vocabulary)
    assert kept.tolist() == [vocabulary.padding, *range(vocabulary.size)]
    moved = Trimmed(whole=vocabulary, kept=kept)
    for ours, own in zip(moved.encode(tiny.LINES), vocabulary.encode(tiny.LINES), strict=True):
        assert ours == [id_ + 1 for id_ in own]


def test_rows_that_the_pieces_have_in_an_embedding():
    """Whole, with rows that pad it, and cut down to the rows that were kept."""
    whole = SimpleNamespace(size=10, padding=7)
    some = Trimmed(whole=whole, kept=np.array([7, 1, 4, 9]))
    moved = Trimmed(whole=whole, kept=all_kept(whole))
    table = np.arange(16)

    def rows(vocabulary, size, rows, most_padding=4):
        found = text_rows(vocabulary, size=size, rows=rows, most_padding=most_padding)
        return None if found is None else table[:rows][found].tolist()

    assert rows(None, 10, 10) == rows(None, 10, 13) == rows(whole, 10, 10) == [*range(10)]
    assert rows(None, 10, 9) is rows(None, 10, 14) is rows(None, 10, 11, most_padding=1) is None
    assert rows(some, 4, 10) == rows(some, 4, 13) == [7, 1, 4, 9]
    assert rows(some, 4, 4) == [0, 1, 2, 3]
    assert rows(some, 4, 5) is rows(some, 4, 9) is rows(some, 4, 14) is None
    assert rows(moved, 11, 10) == rows(moved, 11, 11) == [7, *range(10)]
