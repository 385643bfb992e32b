import io
import pathlib

import pytest

from dsirm_jax.data.vocabularies import folder as vocabularies
from dsirm_jax.data.vocabularies.sentence_piece import SentencePiece
from dsirm_jax.data.vocabularies.tokenizer_json import byte_characters
from dsirm_jax.generator.architectures.tensors import Weights
from dsirm_jax.generator.importing.gguf_tokenizers import write_tokenizer
from dsirm_jax.generator.importing.gguf_weights import GgufFile
from dsirm_jax.io.errors import InputError

MERGES = ["1 2", "12 3", "123 4", "' s", "Ġ b", "e Ì"]
PIECES = ["<pad>", "<s>", "<end>", *byte_characters()]
PIECES += [merge.replace(" ", "") for merge in MERGES] + ["[PAD265]"]
KINDS = [3, 3, 3, *[1] * (len(PIECES) - 4), 5]


def gguf_file(**entries):
    said = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": PIECES,
        "tokenizer.ggml.token_type": KINDS,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
    } | {f"tokenizer.ggml.{name}": value for name, value in entries.items()}
    header = {name: lambda value=value: value for name, value in said.items() if value is not None}
    path = pathlib.Path("model.gguf")
    weights = Weights(path=path, config_file=path, config={}, tensors={})
    return GgufFile(path=path, header=header, weights=weights)


def vocabulary(folder, **entries):
    tokenizer, marks = write_tokenizer(gguf_file(**entries), folder)
    return vocabularies.write(folder / "vocabulary", tokenizer=tokenizer, marks=marks)


def split(read, text):
    return [read.spelling(id_).decode() for id_ in read.encode([text])[0]]


# What the families' own expressions do with digits and apostrophes.
SPLITTINGS = {
    "gpt-2": ["a", "'s", " b", "1234"],
    "smollm": ["a", "'s", " b", "1", "2", "3", "4"],
    "qwen2": ["a", "'s", " b", "1", "2", "3", "4"],
    "llama-bpe": ["a", "'s", " b", "123", "4"],
}


@pytest.mark.parametrize("name", SPLITTINGS)
def test_texts_are_split_as_the_family_splits_them(name, tmp_path):
    read = vocabulary(tmp_path, pre=name)
    assert split(read, "a's b1234") == SPLITTINGS[name]
    assert read.size == len(PIECES) - 1 and read.padding == 0
    assert split(read, "<s>") == ["<", "s", ">"]  # a text is no command


def test_qwen_composes_characters(tmp_path):
    (tmp_path / "smollm").mkdir()
    accented = "e\N{COMBINING ACUTE ACCENT}"
    composed = vocabulary(tmp_path, pre="qwen2")
    assert b"".join(map(composed.spelling, composed.encode([accented])[0])) == "é".encode()
    kept = vocabulary(tmp_path / "smollm")
    assert b"".join(map(kept.spelling, kept.encode([accented])[0])) == accented.encode()


@pytest.mark.parametrize(
    ("entries", "marks"),
    [
        ({}, ((), ())),
        ({"add_bos_token": True}, ((1,), ())),
        ({"add_bos_token": True, "add_eos_token": True}, ((1,), (2,))),
        ({"pre": "llama-bpe"}, ((1,), ())),
        ({"pre": "llama-bpe", "add_bos_token": False}, ((), ())),
    ],
    ids=["none", "first", "both", "of Llama 3", "not of this Llama 3"],
)
def test_marks_are_those_that_the_file_says(entries, marks, tmp_path):
    assert vocabulary(tmp_path, **entries).marks == marks


TEXTS = ["red shoe 42", "  blue   shoes", "crème brûlée", "日本 shoe", "<pad> <s>"]


@pytest.mark.parametrize("prefix", [True, False], ids=["with a space", "without"])
def test_a_sentence_piece_model_is_the_one_that_was_written(prefix, tmp_path):
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"red shoe {n} for blue shoes" for n in range(40)]),
        model_writer=model,
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=False,
        user_defined_symbols=["\n"],
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    (tmp_path / "own.model").write_bytes(model.getvalue())
    own = SentencePiece.read(tmp_path / "own.model")
    ids, processor = range(own.size), own.processor
    kinds = [
        2 if processor.is_unknown(n) else 3 if processor.is_control(n) else 6 * processor.is_byte(n)
        for n in ids
    ]
    kinds = [
        4 if own.processor.id_to_piece(n) == "\n" else kind or 1 for n, kind in zip(ids, kinds)
    ]
    read = vocabulary(
        tmp_path,
        model="llama",
        tokens=[processor.id_to_piece(n) for n in ids],
        scores=[processor.get_score(n) for n in ids],
        token_type=kinds,
        unknown_token_id=3,
        add_space_prefix=prefix,
    )
    assert read.encode([*TEXTS, "red\nshoe"]) == own.encode([*TEXTS, "red\nshoe"])
    assert read.marks == ((1,), ()) and read.padding == 0
    assert read.specials == own.specials and read.byte_pieces == own.byte_pieces


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"model": "t5"}, "model.gguf: tokenizer.ggml.model is 't5', of which no tokenizer"),
        ({"pre": None}, "tokenizer.ggml.pre is None, of which no tokenizer"),
        ({"tokens": None}, "no tokenizer.ggml.tokens; give the model's own"),
        ({"model": "llama", "scores": None}, "no tokenizer.ggml.scores; give the model's own"),
    ],
    ids=["another kind", "no splitting", "no pieces", "no scores"],
)
def test_what_cannot_be_made_exactly_is_asked_for(entries, message, tmp_path):
    with pytest.raises(InputError, match=message):
        write_tokenizer(gguf_file(**entries), tmp_path)
