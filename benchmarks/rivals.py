"""transformers' models of the shapes of ours, which several benchmarks measure beside ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from flax import traverse_util

from dsirm_jax.generator.architectures.decoder_only import DecoderConfig
from dsirm_jax.generator.architectures.decoder_weights import layer_names
from dsirm_jax.generator.architectures.t5 import T5Config, decoder_inputs
from dsirm_jax.generator.architectures.t5_text import EMBEDDING, OUTPUT
from dsirm_jax.generator.architectures.t5_weights import hugging_face_names

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-3
"""Of logits, relative and absolute."""


def t5_described(config: T5Config, *, vocabulary: int) -> Any:
    """Returns transformers' settings of a T5.1.1.

    Args:
      config: its shape.
      vocabulary: rows of its embedding, of which those of SIDs are some.
    """
    import transformers

    return transformers.T5Config(
        vocab_size=vocabulary,
        d_model=config.emb_dim,
        d_kv=config.head_dim,
        d_ff=config.mlp_dim,
        num_heads=config.num_heads,
        num_layers=config.num_encoder_layers,
        num_decoder_layers=config.num_decoder_layers,
        dropout_rate=config.dropout_rate,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        eos_token_id=None,
    )


def t5(params: Any, config: T5Config) -> Any:
    """Returns transformers' T5 with our parameters; SIDs' tokens follow those of text.

    Args:
      params: of our T5, its layers not stacked.
      config: of it.
    """
    import torch
    from transformers import T5ForConditionalGeneration

    model = T5ForConditionalGeneration(t5_described(config, vocabulary=config.vocab_size)).eval()
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.empty(config.vocab_size, config.emb_dim))
    theirs = model.state_dict()
    names = hugging_face_names(config) | {OUTPUT: "lm_head.weight"}
    with torch.no_grad():
        for ours, array in traverse_util.flatten_dict(params, sep="/").items():
            array = np.asarray(array)
            array = array if ours == EMBEDDING or array.ndim == 1 else array.T
            theirs[names[ours]].copy_(torch.from_numpy(np.array(array)))
    model.generation_config.eos_token_id = None
    return model


def llama(params: Any, config: DecoderConfig) -> Any:
    """Returns transformers' Llama with our parameters; SIDs' tokens follow those of text.

    The last token of its vocabulary is the `start` that codes follow.

    Args:
      params: of a decoder without what other families have, its layers not stacked.
      config: of it.
    """
    import torch
    import transformers

    rows = config.text_vocab_size + sum(config.sid_sizes) + 1
    described = transformers.LlamaConfig(
        vocab_size=rows,
        hidden_size=config.emb_dim,
        intermediate_size=config.mlp_dim,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        rms_norm_eps=config.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = transformers.LlamaForCausalLM(described).eval()
    text, of_sids = np.asarray(params["text"]["embedding"]), params["sid"]
    text = text[: config.text_vocab_size]
    levels = range(len(config.sid_sizes))
    # Nothing reads what the last code of a SID is.
    unread = np.zeros((config.sid_sizes[-1], config.emb_dim), np.float32)
    read = [np.asarray(of_sids[f"codes_{level}"]) for level in levels[:-1]]
    written = [np.asarray(of_sids[f"head_{level}"]).T for level in levels]
    start = np.asarray(of_sids["start"])[None]
    arrays = {
        "model.embed_tokens.weight": np.concatenate([text, *read, unread, start]),
        "lm_head.weight": np.concatenate([text, *written, start]),
        "model.norm.weight": np.asarray(params["text"]["norm"]["scale"]),
    }
    names = layer_names(config)
    for number, layer in params["layers"].items():
        for ours, array in traverse_util.flatten_dict(layer, sep="/").items():
            array = np.asarray(array)
            array = array.T if ours.endswith("/kernel") else array
            arrays[f"model.layers.{number}.{names[ours]}"] = array
    theirs = model.state_dict()
    assert theirs.keys() == arrays.keys(), theirs.keys() ^ arrays.keys()
    with torch.no_grad():
        for name, array in arrays.items():
            theirs[name].copy_(torch.from_numpy(np.array(array)))
    model.generation_config.eos_token_id = None
    return model


def sid_tokens(sids: np.ndarray, *, sizes: Sequence[int], text: int) -> np.ndarray:
    """Returns the tokens of SIDs: those of each level follow those of the level before."""
    return sids + (text + np.cumsum([0, *sizes[:-1]]))


def t5_logits(model: Any, tokens: np.ndarray, sids: np.ndarray, config: T5Config) -> np.ndarray:
    """Returns their logits of the levels of given SIDs, `[row, level, token]`."""
    import torch

    inputs = np.array(decoder_inputs(sids, config=config))
    with torch.inference_mode():
        given = (torch.from_numpy(array).long() for array in (tokens, inputs))
        return model(
            **dict(zip(("input_ids", "decoder_input_ids"), given, strict=True))
        ).logits.numpy()


def llama_logits(
    model: Any, tokens: np.ndarray, sids: np.ndarray, config: DecoderConfig
) -> np.ndarray:
    """Returns the same of a Llama."""
    import torch

    levels = len(config.sid_sizes)
    codes = sid_tokens(sids, sizes=config.sid_sizes, text=config.text_vocab_size)
    whole = np.concatenate([started(tokens, config), codes[:, :-1]], axis=1)
    with torch.inference_mode():
        return model(input_ids=torch.from_numpy(whole).long()).logits[:, -levels:].numpy()


def started(tokens: np.ndarray, config: DecoderConfig) -> np.ndarray:
    """Returns prompts of a Llama, the token that codes follow behind each."""
    start = config.text_vocab_size + sum(config.sid_sizes)
    return np.pad(tokens, ((0, 0), (0, 1)), constant_values=start)


def check_logits(ours: Sequence[np.ndarray], theirs: np.ndarray, config: Any) -> None:
    """Raises AssertionError where logits of codes differ.

    Args:
      ours: of each level `[row, 1, code]`.
      theirs: `[row, level, token]`.
      config: of ours.
    """
    first = config.text_vocab_size
    for level, size in enumerate(config.sid_sizes):
        columns = theirs[:, level, first : first + size]
        np.testing.assert_allclose(ours[level][:, 0], columns, rtol=TOLERANCE, atol=TOLERANCE)
        first += size


def following(sids: np.ndarray, *, sizes: Sequence[int], text: int) -> dict[tuple, list[int]]:
    """Returns the tokens that may follow each prefix of some SIDs, a rival's trie."""
    found: dict[tuple, set[int]] = {}
    for sid in sid_tokens(sids, sizes=sizes, text=text).tolist():
        for depth in range(len(sizes)):
            found.setdefault(tuple(sid[:depth]), set()).add(sid[depth])
    return {prefix: sorted(codes) for prefix, codes in found.items()}


def constrained_search(
    model: Any,
    allowed: Mapping[tuple, list[int]],
    tokens: np.ndarray,
    *,
    beams: int,
    levels: int,
    before: int,
) -> Callable[[], torch.Tensor]:
    """Returns transformers' beam search with `prefix_allowed_tokens_fn`.

    Args:
      model: of theirs.
      allowed: see `following`.
      tokens: what it reads.
      beams: kept and returned.
      levels: codes of a SID.
      before: tokens before the codes in what it returns.
    """
    import torch

    read = torch.from_numpy(tokens).long()

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return model.generate(
                input_ids=read,
                attention_mask=torch.ones_like(read),
                num_beams=beams,
                num_return_sequences=beams,
                min_new_tokens=levels,
                max_new_tokens=levels,
                do_sample=False,
                prefix_allowed_tokens_fn=lambda _, prefix: allowed[tuple(prefix[before:].tolist())],
            )

    return run
