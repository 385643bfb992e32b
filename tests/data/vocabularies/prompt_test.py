import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.data import tf_text
from dsirm_jax.data.vocabularies.prompt import Prompted, check_prompt
from dsirm_jax.data.vocabularies.sentence_piece import SentencePiece
from dsirm_jax.data.vocabulary import text_pieces, train_vocabulary
from dsirm_jax.io.errors import InputError
from tests.data.vocabularies import tiny

PROMPT = "find {query} for a"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "vocabulary.model"
    train_vocabulary(texts=iter(tiny.LINES), size=330, path=path, seed=0)
    return path


@pytest.mark.parametrize(
    "prompt",
    ["", "query", "{query} and {query}", "{Query}", None, 3],
    ids=["empty", "no braces", "twice", "another name", "none", "a number"],
)
def test_a_prompt_has_one_place_for_the_query(prompt):
    with pytest.raises(
        InputError, match="^the prompt is .*; give a text that has {query} in it once"
    ):
        check_prompt("the prompt", prompt)


def test_the_default_leaves_texts_as_they_are(path):
    prompted = Prompted(vocabulary=SentencePiece.read(path), most=5)
    assert prompted.whole(tiny.LINES) == text_pieces(path, tiny.LINES)
    assert prompted.pieces(tiny.LINES) == [ids[:5] for ids in text_pieces(path, tiny.LINES)]
    assert Prompted(vocabulary=SentencePiece.read(path), most=1).pieces([""]) == [[]]


def test_text_and_prompt_are_split_as_one_and_the_prompts_end_stays(path):
    prompted = Prompted(vocabulary=SentencePiece.read(path), prompt=PROMPT, most=14)
    short, long = "red shoe", "red shoe without laces blue steel lamp"
    (whole,) = text_pieces(path, ["find red shoe for a"])
    assert prompted.pieces([short]) == [whole]
    (ending,) = text_pieces(path, ["for a"])
    (cut,) = prompted.pieces([long])
    (uncut,) = text_pieces(path, [f"find {long} for a"])
    assert len(cut) == 14 and cut[-len(ending) :] == ending
    assert cut[: -len(ending)] == uncut[: 14 - len(ending)]
    assert prompted.whole([long]) == [uncut]


def test_braces_of_the_text_or_the_prompt_are_text(path):
    prompted = Prompted(vocabulary=SentencePiece.read(path), prompt='{"q": "{query}"}', most=99)
    assert prompted.whole(["{0} {query}"]) == text_pieces(path, ['{"q": "{0} {query}"}'])


def test_the_models_marks_are_around_prompt_and_text(tmp_path):
    vocabulary = tiny.byte_level(tmp_path)
    (bos,), (eos,) = vocabulary.marks
    prompted = Prompted(vocabulary=vocabulary, prompt="Query: {query}\nCode:", most=24)
    (whole,) = vocabulary.encode(["Query: red lamp\nCode:"])
    assert prompted.pieces(["red lamp"]) == [[bos, *whole, eos]]
    (cut,) = prompted.pieces(["red lamp" * 20])
    assert tiny.decoded(vocabulary, cut).startswith(f"{tiny.BOS}Query: red lamp")
    assert tiny.decoded(vocabulary, cut).endswith(f"\nCode:{tiny.EOS}")
    assert len(cut) == 24


def test_a_prompt_that_leaves_no_piece_is_refused(path):
    vocabulary = SentencePiece.read(path)
    (empty,) = text_pieces(path, [PROMPT.format(query="")])
    Prompted(vocabulary=vocabulary, prompt=PROMPT, most=len(empty) + 1)
    with pytest.raises(
        InputError, match=f"{len(empty)} pieces without .* raise generate.run.max_pieces"
    ):
        Prompted(vocabulary=vocabulary, prompt=PROMPT, most=len(empty))


@given(
    texts=st.lists(st.lists(st.sampled_from(tiny.LINES[0].split()), max_size=9), min_size=1),
    most=st.integers(9, 20),
    prompt=st.sampled_from(["{query}", "{query} for", "a {query}", "a {query} m"]),
)
@settings(max_examples=25)
def test_tensorflow_reads_the_same_pieces(path, texts, most, prompt):
    import tensorflow as tf

    texts = [" ".join(words) for words in texts]
    vocabulary = SentencePiece.read(path)
    prompted = Prompted(vocabulary=vocabulary, prompt=prompt, most=most)
    inside = tf_text.prompted(tf.constant(texts), around=prompted.around)
    pieces = tf_text.sentencepiece(vocabulary.processor).tokenize(inside)
    found = tf_text.cut(pieces, ending=prompted.ending, most=most).numpy()
    for row, expected in zip(found.tolist(), prompted.pieces(texts), strict=True):
        assert row == [*expected, *[0] * (most - len(expected))]
