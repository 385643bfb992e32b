"""Makes the golden arrays beside it: tiny random T5 models and what transformers computes of them.

    python tests/generator/golden/make.py

Needs torch and transformers, which the package and its tests do not.
"""

import pathlib

import numpy as np
import torch
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

SIZES = {
    "vocab_size": 96,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 20,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
FIRST = {"feed_forward_proj": "relu", "tie_word_embeddings": True}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
MODELS = {
    "t5": (T5ForConditionalGeneration, T5Config, FIRST),
    "t5_1_1": (T5ForConditionalGeneration, T5Config, GATED),
    "mt5": (MT5ForConditionalGeneration, MT5Config, GATED),
}


def main() -> None:
    for seed, (name, (model_class, config_class, variant)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        model = model_class(config_class(**SIZES, **variant)).eval()
        with torch.no_grad():
            if variant is GATED:  # transformers ties what is not there, whatever it is told
                model.config.tie_word_embeddings = False
                model.lm_head.weight = torch.nn.Parameter(0.5 * torch.randn(96, 16))
            for parameter in model.parameters():  # far from the small values that they start from
                parameter.add_(0.3 * torch.randn_like(parameter))
        folder = pathlib.Path(__file__).parent / name
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        tokens = torch.tensor([[5, 9, 59, 3, 1], [7, 1, 0, 0, 0]])
        labels = torch.tensor([[60, 71, 95], [67, 79, 80]])  # SID tokens, level by level
        inputs = torch.tensor([[0, 60, 71], [0, 67, 79]])
        with torch.no_grad():
            found = model(
                input_ids=tokens,
                attention_mask=tokens != 0,
                decoder_input_ids=inputs,
                labels=labels,
            )
        np.savez(
            folder / "computed.npz",
            tokens=tokens.numpy().astype(np.int32),
            inputs=inputs.numpy().astype(np.int32),
            labels=labels.numpy().astype(np.int32),
            states=found.encoder_last_hidden_state.numpy(),
            logits=found.logits.numpy(),
            loss=found.loss.numpy(),
        )


if __name__ == "__main__":
    main()
