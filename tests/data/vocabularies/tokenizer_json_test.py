import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from dsirm_jax.data.vocabularies.protocol import Vocabulary
from dsirm_jax.data.vocabularies.tokenizer_json import TokenizerJson, byte_characters
from dsirm_jax.io.errors import InputError
from tests.data.vocabularies import tiny


def test_the_characters_of_bytes_are_those_of_the_library():
    assert sorted(byte_characters()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    every = "".join(map(chr, range(0x80))) + "".join(map(chr, range(0xA0, 0x800, 7)))
    ((written, _),) = split.pre_tokenize_str(every)
    assert "".join(byte_characters()[value] for value in every.encode()) == written


@pytest.mark.parametrize("marks", [True, False], ids=["marked", "unmarked"])
def test_ids_are_the_tokenizers_own(tmp_path, marks):
    vocabulary = tiny.byte_level(tmp_path, marks=marks)
    assert isinstance(vocabulary, Vocabulary)
    library = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    bos, eos, control = map(library.token_to_id, (tiny.BOS, tiny.EOS, tiny.CONTROL))
    assert vocabulary.size == library.get_vocab_size()
    assert vocabulary.padding == eos
    assert vocabulary.marks == (((bos,), (eos,)) if marks else ((), ()))
    assert vocabulary.specials == {bos, eos, control}
    texts = ["red shoe", "", "xx-large size 日本"]
    before, behind = vocabulary.marks
    for text, pieces in zip(texts, vocabulary.encode(texts), strict=True):
        assert [*before, *pieces, *behind] == library.encode(text).ids
        assert b"".join(map(vocabulary.spelling, pieces)).decode() == text


def test_a_text_is_never_read_as_a_special_piece(tmp_path):
    vocabulary = tiny.byte_level(tmp_path)
    (pieces,) = vocabulary.encode([f"red {tiny.EOS}{tiny.CONTROL}"])
    assert not vocabulary.specials & {*pieces}
    assert tiny.decoded(vocabulary, pieces) == f"red {tiny.EOS}{tiny.CONTROL}"


def test_bytes_beside_pieces(tmp_path):
    vocabulary = tiny.byte_fallback(tmp_path)
    assert vocabulary.byte_pieces == tuple(range(4, 260))
    assert (vocabulary.padding, vocabulary.marks) == (0, ((2,), ()))
    assert vocabulary.specials == {0, 1, 2, 3}
    (pieces,) = vocabulary.encode(["lamp red é"])
    names = list(map(vocabulary.tokenizer.id_to_token, pieces))
    assert names == ["lamp", "\u2581red", "\u2581", "<0xC3>", "<0xA9>"]
    assert list(map(vocabulary.spelling, pieces)) == [b"lamp", b" red", b" ", b"\xc3", b"\xa9"]


def test_a_tokenizer_without_bytes_has_none(tmp_path):
    pieces = {"[UNK]": 0, "red": 1, "[PAD]": 5}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    vocabulary = tiny.written(tokenizer, tmp_path, pad=None)
    assert (vocabulary.byte_pieces, vocabulary.specials) == ((), {0, 5})
    assert (vocabulary.padding, vocabulary.size) == (5, 6)


def test_a_padding_that_is_no_piece_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"tokenizer_config.json: pad_token is '<none>'"):
        tiny.byte_level(tmp_path, pad="<none>")
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(InputError, match="no JSON object"):
        TokenizerJson.read(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    assert TokenizerJson.read(tmp_path).padding is None
