"""A text may be cut in two ways that are as probable: SentencePiece's and tensorflow-text's."""

import random
from types import SimpleNamespace

from dsirm_jax.data import vocabulary
from dsirm_jax.data.vocabularies.prompt import QUERY, Prompted
from dsirm_jax.data.vocabularies.sentence_piece import SentencePiece
from dsirm_jax.serving.verification.cutting import cut_otherwise
from tests.serving import tiny

MARKS = ("!", "!!", " 0", " 00", " 0 00")


def models_of(path, prompt=QUERY):
    whole = SentencePiece.read(path)
    return SimpleNamespace(
        vocabulary=whole.processor,
        split_in_tensorflow=whole.processor,
        generator=SimpleNamespace(max_pieces=4),
        encoder=SimpleNamespace(max_query_pieces=3),
        prompted=Prompted(vocabulary=whole, prompt=prompt, most=4),
    )


def test_queries_that_are_cut_otherwise_are_named_with_their_pieces(tmp_path):
    path = tmp_path / "vocabulary.model"
    draw = random.Random(0)
    titles = [row["title"] + draw.choice(MARKS) for row in tiny.items(0, 100)]
    vocabulary.train_vocabulary(texts=iter(titles * 3), size=330, path=path, seed=0)
    models = models_of(path)
    queries = ["red shoe", "!!!", "blue mug", "!!", "red lamp stand blue mug !!!"]
    (found,) = cut_otherwise(models, queries)
    assert found.query == "!!!"
    assert found.here != found.there
    assert sorted(found.here) == sorted(found.there) == sorted(["▁", "!", "!!"])
    assert str(found).startswith("query '!!!': SentencePiece cuts it into ▁ ! !!")
    # A prompt may make such a text of one that alone is cut alike.
    differing = cut_otherwise(models_of(path, "{query}!!"), ["!", "!!!", "red"])
    named = {of.query: of for of in differing}
    assert {*named} == {"!", "!!!"}
    assert named["!"].here == found.here  # of "!" and the prompt
    assert named["!!!"].here == found.here  # of the query alone, as an encoder reads it
