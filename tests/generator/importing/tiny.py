"""Tiny models to import: the golden arrays, with tokenizers of as many pieces."""

import json
import pathlib
import shutil

import numpy as np
import safetensors.numpy

from dsirm_jax.data.vocabularies.tokenizer_json import byte_characters

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FAMILIES = ("llama", "qwen2", "qwen3", "gemma3")
SIZE = 96
MERGES = ("r e", "re d", "Ġ s", "Ġs h", "Ġsh o", "o e", "b l", "u e", "bl ue", "Ġ 4")
TEXTS = ["red shoe", "blue shoe 42", "re-edshoe"]


def pieces(*, padding=0):
    """Returns 96 pieces of a byte-level BPE, two of them special."""
    merged = [merge.replace(" ", "") for merge in MERGES]
    found = [byte_characters()[value] for value in range(32, 127)]
    first = "rehdsoblu"
    found = [*first, *(each for each in found if each not in first)]
    found = [*found[: SIZE - 2 - len(merged)], *merged]  # without letters that no test uses
    found.insert(padding, "<pad>")
    return [*found, "<end>"]


def tokenizer(folder, *, padding=0, special=("<pad>", "<end>"), more=()):
    """Writes a tokenizer with its settings; `more` are special pieces behind the rest."""
    names = [*pieces(padding=padding), *more]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    said = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": names.index(name), "content": name, "special": True, **flags}
            for name in (*special, *more)
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {name: number for number, name in enumerate(names)},
            "merges": list(MERGES),
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(said))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))


def hugging_face(folder, name="qwen2", **changes):
    """Writes a golden model with a tokenizer of its pieces."""
    shutil.copytree(GOLDEN / name, folder)
    tokenizer(folder, **changes)
    return folder


def paired(rows, heads):
    """Returns rows of queries or keys as llama.cpp's `LlamaModel.permute` does."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


OF_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
}
OF_GEMMA = OF_LAYER | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
OUTER = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}


def gguf_tensors(name):
    """Returns a golden model's tensors as llama.cpp's `convert_hf_to_gguf.py` writes them."""
    said = json.loads((GOLDEN / name / "config.json").read_text())
    arrays = safetensors.numpy.load_file(GOLDEN / name / "model.safetensors")
    found = {}
    for theirs, array in arrays.items():
        parts = theirs.removeprefix("model.").split(".")
        kind = parts[-1]
        module = ".".join(parts[2:-1])
        if parts[0] == "layers":
            part = (OF_GEMMA if name == "gemma3" else OF_LAYER)[module]
            gguf_name = f"blk.{parts[1]}.{part}.{kind}"
        else:
            gguf_name = f"{OUTER[parts[0]]}.{kind}"
        if name == "llama" and module in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = "num_attention_heads" if "q_proj" in module else "num_key_value_heads"
            array = paired(array, said[heads])
        if name == "gemma3" and theirs.endswith("norm.weight"):
            array = array + 1
        found[gguf_name] = np.ascontiguousarray(array)
    if name == "llama":
        found["rope_freqs.weight"] = llama_stretch(said)
    return found


def llama_stretch(said):
    """Returns the factors of frequencies as `LlamaModel.generate_extra_tensors` does."""
    rope = said["rope_parameters"]
    half = np.arange(0, said["head_dim"], 2) / said["head_dim"]
    length, factors = rope["original_max_position_embeddings"], []
    for frequency in 1 / rope["rope_theta"] ** half:
        wave = 2 * np.pi / frequency
        if wave < length / rope["high_freq_factor"]:
            factors.append(1.0)
        elif wave > length / rope["low_freq_factor"]:
            factors.append(rope["factor"])
        else:
            bands = rope["high_freq_factor"] - rope["low_freq_factor"]
            smooth = (length / wave - rope["low_freq_factor"]) / bands
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


def write_gguf(path, name="qwen2", *, quantised=None, change=lambda arrays: None, **entries):
    """Writes a golden model as GGUF; `entries` replace those of the header, None leaves one out."""
    import gguf

    said = json.loads((GOLDEN / name / "config.json").read_text())
    rope = said["rope_parameters"]
    whole = rope.get("full_attention", rope)
    header = {
        "general.architecture": name,
        "context_length": said["max_position_embeddings"],
        "embedding_length": said["hidden_size"],
        "feed_forward_length": said["intermediate_size"],
        "block_count": said["num_hidden_layers"],
        "attention.head_count": said["num_attention_heads"],
        "attention.head_count_kv": said["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": said["rms_norm_eps"],
        "rope.freq_base": float(whole["rope_theta"]),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": pieces(),
        "tokenizer.ggml.token_type": [3, *[1] * (SIZE - 2), 3],
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.padding_token_id": 0,
    }
    if said.get("head_dim"):
        header["attention.key_length"] = said["head_dim"]
    if name == "gemma3":
        header["attention.sliding_window"] = said["sliding_window"]
    if whole["rope_type"] == "linear":
        header |= {"rope.scaling.type": "linear", "rope.scaling.factor": whole["factor"]}
    header |= {key.replace("__", "."): value for key, value in entries.items()}
    kind = header.pop("general.architecture")
    writer = gguf.GGUFWriter(path, kind)
    for key, value in header.items():
        full = key if key.split(".")[0] in ("tokenizer", "general", "split") else f"{kind}.{key}"
        if isinstance(value, list):
            writer.add_array(full, value)
        elif isinstance(value, bool):
            writer.add_bool(full, value)
        elif isinstance(value, int):
            writer.add_uint32(full, value)
        elif isinstance(value, float):
            writer.add_float32(full, value)
        elif value is not None:
            writer.add_string(full, value)
    arrays = gguf_tensors(name)
    change(arrays)
    for tensor, array in arrays.items():
        if quantised and array.ndim > 1 and array.shape[1] % 32 == 0:
            type_ = getattr(gguf.GGMLQuantizationType, quantised)
            writer.add_tensor(tensor, gguf.quantize(array, type_), raw_dtype=type_)
        else:
            writer.add_tensor(tensor, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
