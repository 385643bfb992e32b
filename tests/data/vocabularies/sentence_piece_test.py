import sentencepiece

from dsirm_jax.data.vocabularies.protocol import Vocabulary
from dsirm_jax.data.vocabularies.sentence_piece import SentencePiece
from dsirm_jax.data.vocabulary import text_pieces, train_vocabulary
from tests.data.vocabularies import tiny


def test_ids_are_the_models_own(tmp_path):
    vocabulary = tiny.sentence_piece(tmp_path)
    assert isinstance(vocabulary, Vocabulary)
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert vocabulary.size == library.vocab_size()
    assert (vocabulary.padding, vocabulary.specials) == (0, {0, 1, 2, 3})
    texts = ["red  shoe", "", "日本 <eos>"]
    assert vocabulary.encode(texts) == library.encode(texts)
    assert vocabulary.encode(texts[:1]) == library.encode(texts[:1])
    for text, pieces in zip(texts, vocabulary.encode(texts), strict=True):
        assert b"".join(map(vocabulary.spelling, pieces)).decode() == text
    assert [library.id_to_piece(id_) for id_ in vocabulary.byte_pieces[254:]] == [
        "<0xFE>",
        "<0xFF>",
    ]


def test_that_of_a_run_has_no_marks(tmp_path):
    path = tmp_path / "vocabulary.model"
    train_vocabulary(texts=iter(tiny.LINES), size=330, path=path, seed=0)
    vocabulary = SentencePiece.read(path)
    assert vocabulary.encode(tiny.LINES) == text_pieces(path, tiny.LINES)
    assert (vocabulary.padding, vocabulary.specials) == (0, {0, 1, 2})
    assert vocabulary.marks == ((), ())


def test_a_model_without_bytes_or_padding_has_none(tmp_path):
    vocabulary = tiny.sentence_piece(tmp_path, byte_fallback=False, pad=-1)
    assert (vocabulary.byte_pieces, vocabulary.padding) == ((), None)
