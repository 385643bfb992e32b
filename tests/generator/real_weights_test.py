"""Real models are what transformers makes of them; `DSIRM_WEIGHTS` names a folder of their folders.

DSIRM_WEIGHTS=weights pytest -s tests/generator/real_weights_test.py
"""

import dataclasses
import functools
import json
import os
import pathlib

import jax
import numpy as np
import pytest
from flax import traverse_util

from dsirm_jax.data.vocabularies import folder as vocabularies
from dsirm_jax.generator.architectures.decoder_only import DecoderConfig, text_states
from dsirm_jax.generator.architectures.decoder_weights import read_text_model
from dsirm_jax.generator.architectures.t5_text import EMBEDDING, OUTPUT, WEIGHTS, load_text_params
from dsirm_jax.generator.importing.models import import_model

NAMED = os.environ.get("DSIRM_WEIGHTS", "")
pytestmark = pytest.mark.skipif(not NAMED, reason="DSIRM_WEIGHTS names no folder of models")
SENTENCE = "The capital of France is"
TEXTS = (
    SENTENCE,
    "Wireless noise-cancelling headphones, 40h battery, black/silver",
    "café crème 2",
)
QUESTION = "translate English to German: The house is wonderful."
FURTHER, LEVELS = 10, 5
DECODERS = ("llama", "qwen2", "qwen3", "gemma3_text")
ENCODER_DECODERS = ("t5", "mt5")


def model_folder(model_type):
    """Returns the first folder with a model of a family; without one the test is skipped."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    for config in sorted(pathlib.Path(NAMED).glob("*/config.json")):
        if json.loads(config.read_text()).get("model_type") == model_type:
            return config.parent
    pytest.skip(f"{NAMED} has no folder with a {model_type}")


def own_ids(vocabulary):
    """Returns the model's own ids of a vocabulary's."""
    kept = getattr(vocabulary, "kept", None)
    return np.arange(vocabulary.size) if kept is None else kept


def with_marks(vocabulary, text):
    """Returns the ids of a text as the model wants it."""
    before, behind = vocabulary.marks
    return [*before, *vocabulary.encode([text])[0], *behind]


def decoder_logits(out):
    """Returns a vocabulary, and a function of ids to the logits behind each."""
    vocabulary, found = vocabularies.read(out / "vocabulary"), DecoderConfig.of_folder(out)
    config = dataclasses.replace(found, text_vocab_size=vocabulary.size)
    params = config.pretrained(out, seed=0, vocabulary=vocabulary)
    output = read_text_model(out, config=found, tokens=found.text_vocab_size).output
    if len(output) != vocabulary.size:
        output = output[own_ids(vocabulary)]
    states = jax.jit(functools.partial(text_states, config))

    def logits(ids, *, length):
        found = states(params, np.pad(ids, (0, length - len(ids)))[None])
        return np.asarray(found)[0, : len(ids)] @ output.T

    return vocabulary, logits


@pytest.mark.parametrize("model_type", DECODERS)
def test_a_decoder_gives_the_logits_of_transformers(model_type, tmp_path):
    folder = model_folder(model_type)
    import torch
    import transformers

    print("", *import_model(folder, tmp_path / "whole"), sep="\n")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    lines = import_model(folder, tmp_path / "cut", texts=[str(tmp_path / "texts.txt")])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for name in ("whole", "cut"):
        vocabulary, logits = decoder_logits(tmp_path / name)
        own, differences = own_ids(vocabulary), []
        for text in TEXTS:
            ids = with_marks(vocabulary, text)
            assert own[ids].tolist() == tokenizer(text).input_ids
            with torch.no_grad():
                expected = theirs(torch.tensor(own[ids][None])).logits[0].numpy()[:, own]
            found = logits(ids, length=64)
            differences.append(np.abs(found - expected).max())
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        print(f"{name}: largest difference of logits {max(differences):.1e}")
        if name == "cut":
            continue
        ids = with_marks(vocabulary, SENTENCE)
        with torch.no_grad():
            longer = theirs.generate(
                torch.tensor(own[ids][None]), max_new_tokens=FURTHER, do_sample=False
            )[0].tolist()
        while len(ids) < len(longer):
            ids.append(int(np.argmax(logits(ids, length=64)[-1])))
        print(repr(tokenizer.decode(longer)))
        assert own[ids].tolist() == longer
    print(lines[-1])


@pytest.mark.parametrize("model_type", ENCODER_DECODERS)
def test_a_t5_gives_the_logits_of_transformers(model_type, tmp_path):
    folder = model_folder(model_type)
    import torch
    import transformers

    print("", *import_model(folder, tmp_path / "out"), sep="\n")
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text, params = load_text_params(tmp_path / "out" / WEIGHTS)
    size = text.text_vocab_size
    # Every token stands for a code of every level.
    config = dataclasses.replace(text, sid_sizes=(size,) * LEVELS)
    flat = traverse_util.flatten_dict(params, sep="/")
    missing = config.vocab_size - size * (LEVELS + 1)
    flat[EMBEDDING] = np.pad(np.tile(flat[EMBEDDING], (LEVELS + 1, 1)), ((0, missing), (0, 0)))
    if OUTPUT in flat:
        flat[OUTPUT] = np.pad(np.tile(flat[OUTPUT], (1, LEVELS + 1)), ((0, 0), (0, missing)))
    params = jax.device_put(traverse_util.unflatten_dict(flat, sep="/"))
    ids = tokenizer(QUESTION).input_ids
    with torch.no_grad():
        longer = theirs.generate(
            torch.tensor([ids]), max_new_tokens=LEVELS, do_sample=False, min_new_tokens=LEVELS
        )
        expected = theirs(torch.tensor([ids]), decoder_input_ids=longer[:, :-1]).logits[0].numpy()
    print(repr(tokenizer.decode(longer[0])))
    state = jax.jit(config.encode)(params, np.array([ids]))
    codes, past, found = np.zeros((1, 1, 0), np.int32), None, []
    for level in range(LEVELS):
        (logits,), past = config.decode(params, state, codes, past)
        found.append(np.asarray(logits)[0, 0])
        codes = np.argmax(logits, axis=-1)[..., None].astype(np.int32)
        assert codes.item() == longer[0, level + 1].item()
    expected = expected[:, :size]
    print(f"largest difference of logits {np.abs(np.stack(found) - expected).max():.1e}")
    np.testing.assert_allclose(np.stack(found), expected, rtol=1e-4, atol=1e-4)
