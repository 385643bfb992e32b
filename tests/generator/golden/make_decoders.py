"""Makes the golden arrays of decoder-only models: tiny random ones, and what transformers computes.

    python tests/generator/golden/make_decoders.py

Needs torch and transformers, which the package and its tests do not.
"""

import pathlib

import numpy as np
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SHARED = {
    "vocab_size": 96,
    "hidden_size": 24,
    "intermediate_size": 28,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 40,
}
BOTH = {
    "full_attention": {"rope_type": "linear", "factor": 3.0, "rope_theta": 1000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
}
MODELS = {
    "llama": (
        *(LlamaForCausalLM, LlamaConfig),
        {"num_hidden_layers": 2, "head_dim": 8, "rms_norm_eps": 1e-5, "rope_parameters": LLAMA_3},
    ),
    "qwen2": (
        *(Qwen2ForCausalLM, Qwen2Config),
        {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 1}
        | {"tie_word_embeddings": True},
    ),
    "qwen3": (
        *(Qwen3ForCausalLM, Qwen3Config),
        {"num_hidden_layers": 2, "head_dim": 6, "tie_word_embeddings": True},
    ),
    "gemma3": (
        *(Gemma3ForCausalLM, Gemma3TextConfig),
        {"num_hidden_layers": 3, "head_dim": 6, "query_pre_attn_scalar": 10, "sliding_window": 4}
        | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
        | {"rope_parameters": BOTH},
    ),
}
PROMPTS = [[5, 9, 59, 3, 1, 44, 17, 8, 30], [7, 1, 22, 6, 51]]
START = 2  # stands for what codes begin with
SIDS = [[60, 71, 95], [67, 79, 80]]  # tokens that stand for codes, level by level


def main() -> None:
    for seed, (name, (model_class, config_class, variant)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        model = model_class(config_class(**SHARED | variant)).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # far from the small values that they start from
                parameter.add_(0.3 * torch.randn_like(parameter))
        folder = pathlib.Path(__file__).parent / name
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        logits, of_codes, continued = [], [], []
        for prompt, sid in zip(PROMPTS, SIDS, strict=True):
            with torch.no_grad():
                whole = model(input_ids=torch.tensor([[*prompt, START, *sid[:2]]])).logits[0]
                longer = model.generate(
                    torch.tensor([prompt]), max_new_tokens=8, do_sample=False, pad_token_id=0
                )
            logits.append(whole[: len(prompt)].numpy())
            of_codes.append(whole[len(prompt) :].numpy())
            continued.append(longer[0, len(prompt) :].numpy())
        length = max(map(len, PROMPTS))
        np.savez(
            folder / "computed.npz",
            tokens=np.array([[*p, *[0] * (length - len(p))] for p in PROMPTS], np.int32),
            sids=np.array(SIDS, np.int32),
            logits=np.stack([np.pad(x, ((0, length - len(x)), (0, 0))) for x in logits]),
            of_codes=np.stack(of_codes),
            continued=np.stack(continued).astype(np.int32),
        )


if __name__ == "__main__":
    main()
