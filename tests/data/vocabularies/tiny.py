"""Tiny tokenizers of the kinds that language models bring."""

import json

import sentencepiece
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from dsirm_jax.data.vocabularies.sentence_piece import SentencePiece
from dsirm_jax.data.vocabularies.tokenizer_json import TokenizerJson

LINES = [
    "red shoe without laces",
    "blue steel lamp for a desk",
    "charger cable, 2 m",
    "Größe 42 rote Schuhe",
    "wool socks\nsize 12",
    "phone case with a red lamp",
] * 20
BOS, EOS, CONTROL = "<|begin|>", "<|end|>", "<|tool|>"


def byte_level(folder, *, marks=True, pad=EOS, size=420, alphabet=None):
    """Returns a byte-level BPE like SmolLM2's, which is written into a folder and read from it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[CONTROL, BOS, EOS],
        initial_alphabet=alphabet or pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_tokens(["xx-large size"])
    if marks:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A {EOS}",
            special_tokens=[(name, tokenizer.token_to_id(name)) for name in (BOS, EOS)],
        )
    return written(tokenizer, folder, pad=pad)


def byte_fallback(folder):
    """Returns a BPE whose spaces are letters, and whose rare ones bytes, like Gemma's."""
    names = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{value:02X}>" for value in range(256))]
    letters = [*"\u2581abcdelmoprstuö"]
    merges = [("r", "e"), ("re", "d"), ("\u2581", "red"), ("l", "a"), ("m", "p"), ("la", "mp")]
    pieces = [*names, *letters, *map("".join, merges)]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: id_ for id_, piece in enumerate(pieces)},
            merges=merges,
            byte_fallback=True,
            fuse_unk=True,
            unk_token="<unk>",
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    return written(tokenizer, folder, pad=None)


def written(tokenizer, folder, *, pad):
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": pad}))
    return TokenizerJson.read(folder)


def sentence_piece(folder, *, byte_fallback=True, marks=((2,), ()), pad=0):
    """Returns a SentencePiece model with Gemma's ids and as little normalisation."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=340 if byte_fallback else 60,
        hard_vocab_limit=False,
        model_type="unigram",
        byte_fallback=byte_fallback,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        pad_id=pad,
        eos_id=1,
        bos_id=2,
        unk_id=3 if pad == 0 else 0,
        num_threads=1,
        minloglevel=2,
    )
    return SentencePiece.read(folder / "tokenizer.model", marks=marks)


def decoded(vocabulary, ids):
    """Returns the text of ids, as the tokenizer's own library has it."""
    if isinstance(vocabulary, TokenizerJson):
        return vocabulary.tokenizer.decode(list(ids), skip_special_tokens=False)
    return vocabulary.processor.decode(list(map(int, ids)))
