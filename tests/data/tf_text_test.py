from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.data import tf_text, vocabulary, wordpieces
from dsirm_jax.data.text import clean
from dsirm_jax.encoder.bert import NO_PIECE
from tests.serving import tiny

BERT = Path(__file__).parents[1] / "encoder" / "golden" / "bert"
ESCI = Path(__file__).parents[3] / "shared/data/esci_us_slice"
TEXTS = [
    "Tom&amp;Jerry&nbsp; <b>Mug</b>\n350ml",
    "a&amp;amp;lt;b &#39;c&#x27; d&quot;",
    "AT&T size <10 A&copper",
    "<script>x</script>y<!-- z -->",
    " \u3000ａ\u00a0b\x1c c\u200bd\xade\u2028f ",
    "Ünïcödé ½ ™ ß ﬁ 靴 👟",
    "MÜGS ,reD shoe's",
    "",
]


def in_tensorflow(texts):
    import tensorflow as tf

    return [text.decode() for text in tf_text.cleaned(tf.constant(texts)).numpy()]


def test_texts_are_cleaned_as_everywhere():
    assert in_tensorflow(TEXTS) == [clean(text) for text in TEXTS]


# Any characters but an entity's first, which tensorflow knows few of.
@settings(deadline=None, max_examples=40)
@given(texts=st.lists(st.text(st.characters(exclude_characters="&", codec="utf-8")), min_size=1))
def test_any_text_without_entities_is_cleaned_as_everywhere(texts):
    assert in_tensorflow(texts) == [clean(text) for text in texts]


def test_pieces_are_those_of_sentencepiece(tmp_path):
    import tensorflow as tf

    path = tmp_path / "vocabulary.model"
    texts = [row["title"] for row in tiny.items(0, 100)]
    vocabulary.train_vocabulary(texts=iter(texts), size=330, path=path, seed=0)
    cleaned = [clean(text) for text in [*TEXTS, *texts]]
    found = tf_text.sentencepiece(vocabulary.processor(path)).tokenize(tf.constant(cleaned))
    assert found.to_list() == vocabulary.text_pieces(path, cleaned)


@pytest.mark.parametrize("most", [5, 32])
def test_word_pieces_are_those_of_the_tokenizer(most):
    import tensorflow as tf

    tokenizer = wordpieces.read_tokenizer(BERT)
    cleaned = [clean(text) for text in TEXTS]
    pieces = tf_text.wordpieces(tokenizer)(tf.constant(cleaned))
    found = tf_text.marked(
        pieces, around=wordpieces.marks(tokenizer), most=most, padding=NO_PIECE
    ).numpy()
    expected = wordpieces.tokenize(tokenizer, cleaned, prefix="", max_pieces=most)
    assert [[id_ for id_ in row if id_ != NO_PIECE] for row in found.tolist()] == expected


def test_a_tokenizer_of_another_kind_has_no_like():
    from tokenizers import Tokenizer, models

    assert tf_text.wordpieces(Tokenizer(models.BPE())) is None


def test_queries_of_a_real_shop_are_cleaned_as_everywhere():
    file = ESCI / "shopping_queries_dataset_examples.parquet"
    if not file.is_file():
        pytest.skip(f"no {file}")
    queries = pq.read_table(file, columns=["query"])["query"].unique().to_pylist()
    assert in_tensorflow(queries) == [clean(query) for query in queries]
