"""Makes what is in this folder: a tiny random BERT, and what transformers computes with it.

    python tests/encoder/golden/make.py [FOLDER OF all-MiniLM-L6-v2]

With a folder it makes MiniLM's vectors too. Needs torch and transformers, which the package and its
tests do not; made with transformers 5.24.0, torch 2.13.0 and tokenizers 0.23.3.
"""

import sys
from pathlib import Path

import numpy as np
import safetensors.numpy
import tokenizers
import torch
import transformers

HERE = Path(__file__).parent
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("red", "blue", "shoe", "##s", "##maker", "mug", "for", "kid", "size", "10", ",")
MINILM_TEXTS = ("red shoes", "usb c cable 2m", "Apple iPhone 13 case, clear — cover", "ça va")
TEXTS = ("Red shoes for kids", "mug", "blue shoemaker, size 10 red zzz mug for kids")


def main():
    folder = HERE / "bert"
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join((*MARKS, *WORDS)) + "\n")
    config = transformers.BertConfig(
        vocab_size=len(MARKS) + len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        max_position_embeddings=20,
        layer_norm_eps=1e-7,
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    random = np.random.default_rng(0)
    for parameter in model.parameters():  # biases and norms too, so that none is left out unseen
        values = 0.5 * random.standard_normal(parameter.shape)
        parameter.data = torch.tensor(values, dtype=torch.float32)
    model.save_pretrained(folder)

    tokenizer = tokenizers.BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(list(TEXTS))]
    pieces, mask = padded(ids)
    states = last_states(model, pieces, mask)
    pooled = {"mean": mean(states, mask), "cls": unit(states[:, 0])}
    pieces = np.where(mask, pieces, -1).astype(np.int32)
    arrays = {"pieces": pieces, "states": states, **pooled}
    safetensors.numpy.save_file(arrays, HERE / "bert.safetensors")
    if len(sys.argv) > 1:
        tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
        model = transformers.AutoModel.from_pretrained(sys.argv[1]).eval()
        pieces, mask = padded(tokenizer(list(MINILM_TEXTS))["input_ids"])
        vectors = mean(last_states(model, pieces, mask), mask)
        safetensors.numpy.save_file({"vectors": vectors}, HERE / "minilm.safetensors")


def padded(ids):
    length = max(map(len, ids))
    pieces = np.array([[*row, *[0] * (length - len(row))] for row in ids])
    mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in ids])
    return pieces, mask


def last_states(model, pieces, mask):
    with torch.no_grad():
        return model(input_ids=torch.tensor(pieces), attention_mask=torch.tensor(mask))[0].numpy()


def mean(states, mask):
    return unit((states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True))


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()
