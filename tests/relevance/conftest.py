from __future__ import annotations

import io

import pytest
import sentencepiece


@pytest.fixture(scope="session")
def processor():
    """A vocabulary whose pieces are words."""
    texts = ["red shoe", "red red bag", "blue shoe size 10", "leather wallet", "shoe", "zebra"]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 5),
        model_writer=model,
        model_type="word",
        vocab_size=14,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
