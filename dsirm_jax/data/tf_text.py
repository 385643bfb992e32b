"""Texts to pieces inside TensorFlow graphs, as `data.text`, SentencePiece and tokenizers do it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dsirm_jax.data.text import INVISIBLE, ROUNDS, TAGS

if TYPE_CHECKING:
    import tensorflow as tf
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer

WHITE_SPACE = "[\\s\\x0b\\x1c-\\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
MARKUP = (
    r"(?is)<script\b[^<>]*>[^<]*</script\s*>|<style\b[^<>]*>[^<]*</style\s*>|<!--.*?-->"
    rf"|</?(?:{TAGS})\b[^<>]*>"
)
ENTITIES = {
    "lt|#0*60|#[xX]0*3[cC]": "<",
    "gt|#0*62|#[xX]0*3[eE]": ">",
    "quot|#0*34|#[xX]0*22": '"',
    "apos|#0*39|#[xX]0*27": "'",
    "nbsp|#0*160|#[xX]0*[aA]0": " ",
    "amp|#0*38|#[xX]0*26": "&",
}
"""Those that queries may have; the others of HTML stay as they are."""


def cleaned(text: tf.Tensor) -> tf.Tensor:
    """Returns texts as `data.text.clean` does, but for the rarer entities of HTML.

    What is no UTF-8 becomes U+FFFD.
    """
    import tensorflow as tf

    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8")
    for _ in range(ROUNDS):
        text = tf.strings.regex_replace(text, f"[{INVISIBLE}]", "")
        text = tf.strings.regex_replace(text, MARKUP, " ")
        for names, character in ENTITIES.items():
            text = tf.strings.regex_replace(text, f"&(?:amp;)*(?:{names});", character)
    return tf.strings.strip(tf.strings.regex_replace(text, WHITE_SPACE, " "))


def sentencepiece(vocabulary: SentencePieceProcessor, *, name: str | None = None) -> Any:
    """Returns tensorflow-text's tokenizer of the same vocabulary.

    Args:
      vocabulary: the model.
      name: of the tokenizer in its graph; where two in a SavedModel have one name, what loads it
        takes one for both.
    """
    import tensorflow as tf
    import tensorflow_text

    return tensorflow_text.SentencepieceTokenizer(
        vocabulary.serialized_model_proto(), out_type=tf.int32, name=name
    )


def wordpieces(tokenizer: Tokenizer) -> Callable[[tf.Tensor], tf.RaggedTensor] | None:
    """Returns what gives the pieces of a BERT's tokenizer, without its marks.

    Args:
      tokenizer: see `data.wordpieces`.

    Returns:
      None where it does something that tensorflow-text has no like of.
    """
    import tensorflow as tf
    import tensorflow_text

    described = json.loads(tokenizer.to_str())
    model, normaliser = described["model"], described["normalizer"] or {}
    lowercase = normaliser.get("lowercase")
    is_berts = (
        model["type"] == "WordPiece"
        and normaliser.get("type") == "BertNormalizer"
        and normaliser.get("strip_accents") in (None, lowercase)
        and all(normaliser.get(name) for name in ("clean_text", "handle_chinese_chars"))
        and (described["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer"
        and model["continuing_subword_prefix"] == "##"
    )
    if not is_berts:
        return None
    split = tensorflow_text.FastBertTokenizer(
        sorted(model["vocab"], key=model["vocab"].get),
        token_out_type=tf.int32,
        unknown_token=model["unk_token"],
        max_bytes_per_word=model["max_input_chars_per_word"],
        support_detokenization=False,
    )

    def pieces(text: tf.Tensor) -> tf.RaggedTensor:
        text = tf.strings.regex_replace(text, "\ufffd", "")
        if lowercase:  # its own way to lower case also unfolds ligatures and fractions
            text = tensorflow_text.normalize_utf8(text, "NFD")
            text = tf.strings.lower(tf.strings.regex_replace(text, r"\p{Mn}", ""), "utf-8")
        return split.tokenize(text)

    return pieces


def prompted(text: tf.Tensor, *, around: tuple[str, str]) -> tf.Tensor:
    """Returns texts within a prompt, see `Prompted.around`."""
    import tensorflow as tf

    before, behind = around
    return tf.strings.join([before, text, behind])


def cut(pieces: tf.RaggedTensor, *, ending: Sequence[int], most: int) -> tf.Tensor:
    """Returns what a generator reads of texts, as `Prompted.cut` does, and 0 beyond it.

    Args:
      pieces: int32 `[text, (piece)]`.
      ending: see `Prompted.ending`.
      most: width of what is returned.
    """
    import tensorflow as tf

    whole = pieces.to_tensor(shape=[None, most])
    if not ending:
        return whole
    kept = pieces.to_tensor(shape=[None, most - len(ending)])
    shortened = tf.concat([kept, tf.tile([[*ending]], [pieces.nrows(), 1])], axis=1)
    return tf.where((pieces.row_lengths() > most)[:, None], shortened, whole)


def marked(
    pieces: tf.RaggedTensor, *, around: tuple[Sequence[int], Sequence[int]], most: int, padding: int
) -> tf.Tensor:
    """Returns pieces between their marks, at most so many, and padding beyond the text.

    Args:
      pieces: int32 `[text, (piece)]`.
      around: see `wordpieces.marks`.
      most: width of what is returned.
      padding: what stands beyond the text.
    """
    import tensorflow as tf

    before, behind = around
    kept = pieces[:, : most - len(before) - len(behind)]
    rows = pieces.nrows()
    parts = [tf.tile([before], [rows, 1]), kept, tf.tile([behind], [rows, 1])]
    return tf.concat(parts, axis=1).to_tensor(padding, shape=[None, most])
