"""Much data through a device: the parts `assign` and `encode` of `benchmarks/device.py`."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from device_models import torch_device
from device_parity import BERT_TOLERANCE, TESTS, bounded, quantizer_of
from lines import line
from quantizer_sides import data
from timing import compare, milliseconds, rates

from dsirm_jax.encoder import hugging_face
from dsirm_jax.encoder.bert import SentenceEncoder
from dsirm_jax.encoder.embed import embed_by_length
from dsirm_jax.quantizer.assign import assign_vectors

if TYPE_CHECKING:
    from device_sizes import Sizes

BLOCK_ROWS = 4096
TEXT_PIECES = (17, 32)


def assign(sizes: Sizes) -> Iterator[dict]:
    """Times SIDs of a file beside copies of its rows to the device, two of them under way."""
    block, words = data(BLOCK_ROWS, (sizes.level,) * 3, dim=sizes.dim)
    fitted = quantizer_of(words)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.f32"
        with path.open("wb") as file:
            for _ in range(sizes.items // BLOCK_ROWS):
                file.write(block.data)
        vectors = np.memmap(path, np.float32, mode="r").reshape(-1, sizes.dim)

        def ours() -> object:
            return assign_vectors(fitted=fitted, vectors=vectors)

        def copies() -> None:
            before = None
            for start in range(0, len(vectors), sizes.copied_rows):
                placed = jax.device_put(vectors[start : start + sizes.copied_rows])
                jax.block_until_ready(before)
                before = placed
            jax.block_until_ready(before)

        found = compare("assign/copies", ours, copies, rounds=3)
        yield rates(found, len(vectors), "items/s")


def encode(sizes: Sizes) -> Iterator[dict]:
    """Times vectors of texts of several lengths beside transformers, in float32 and bfloat16."""
    random = np.random.default_rng(0)
    lengths = random.integers(*TEXT_PIECES, sizes.texts, endpoint=True)
    pieces = [random.integers(1, sizes.bert.vocab_size, length).tolist() for length in lengths]
    module = SentenceEncoder(config=sizes.bert)
    params = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 1), np.int32))
    has_rival = all(map(importlib.util.find_spec, ("torch", "transformers")))
    for dtype in ("float32", "bfloat16"):

        def ours(dtype: str = dtype) -> np.ndarray:
            return embed_by_length(
                module=module.clone(dtype=dtype),
                params=params,
                pieces=pieces,
                max_pieces=TEXT_PIECES[1],
                name=f"encode {dtype}",
            )

        rate = 1e3 * sizes.texts / milliseconds(ours, rounds=sizes.rounds)
        yield line(f"encode/{dtype}", rate, None, "texts/s", ratio=None)
        if has_rival:
            other = transformers_vectors(module, params, pieces, dtype=dtype)
            found = compare(f"encode/{dtype}/transformers", ours, other, rounds=3)
            yield rates(found, sizes.texts, "texts/s")
            if dtype == "float32":
                apart = float(np.abs(ours() - other()).max())
                yield bounded("encode/float32/difference", apart, BERT_TOLERANCE, "of a coordinate")


def transformers_vectors(
    module: SentenceEncoder, params: Any, pieces: list[list[int]], *, dtype: str
) -> Callable[[], np.ndarray]:
    """Returns what makes the same vectors by transformers: texts of like length share a batch."""
    import torch
    import transformers

    tokenizer = hugging_face.read_folder(TESTS / "encoder" / "golden" / "bert").tokenizer
    encoder = hugging_face.TextEncoder(module=module, params=params, tokenizer=tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        hugging_face.write_folder(folder, encoder)
        model = transformers.BertModel.from_pretrained(
            folder,
            add_pooling_layer=False,
            attn_implementation="sdpa",
            dtype=getattr(torch, dtype),
        )
    device = torch_device()
    model = model.eval().to(device)
    rows = 32 if device == "cpu" else 1024
    order = np.argsort([-len(ids) for ids in pieces], kind="stable")
    width = module.config.hidden_size

    def run() -> np.ndarray:
        vectors = torch.empty((len(pieces), width), device=device)
        for start in range(0, len(order), rows):
            some = [pieces[row] for row in order[start : start + rows]]
            tokens = np.zeros((len(some), len(some[0])), np.int64)
            for row, ids in zip(tokens, some, strict=True):
                row[: len(ids)] = ids
            present = np.arange(len(some[0])) < np.array([[len(ids)] for ids in some])
            given, mask = (torch.from_numpy(array).to(device) for array in (tokens, present))
            with torch.inference_mode():
                states = model(input_ids=given, attention_mask=mask).last_hidden_state.float()
                pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
                unit = torch.nn.functional.normalize(pooled)
            vectors[torch.from_numpy(order[start : start + rows]).to(device)] = unit
        return vectors.cpu().numpy()

    return run
