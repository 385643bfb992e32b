"""Training steps on a device: the parts `quantizer` and `t5` of `benchmarks/device.py`."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import rivals
from lines import line
from quantizer_sides import data, our_step, products, torch_step
from timing import compare, compare_queued, milliseconds, queued

from dsirm_jax.ahead.chips import CHIPS, Chip
from dsirm_jax.ahead.compile import Target, generate_step
from dsirm_jax.ahead.programs import operations
from dsirm_jax.data.tasks import Curriculum
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.losses import GeneratorObjective
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.sids.codes import to_tokens
from dsirm_jax.training.memory import memory_of
from dsirm_jax.training.settings import Training

if TYPE_CHECKING:
    from device_sizes import Sizes

GIB = 2**30
# What JAX calls TPUs whose generation is not in their name.
CHIPS_BY_KIND = {"v5 lite": "v5e", "v5litepod": "v5e", "v6 lite": "v6e", "tpu v5": "v5p"}


def quantizer(sizes: Sizes) -> Iterator[dict]:
    """Times the quantizer's step beside the products that it cannot do without, and a rival's."""
    for rows in sizes.step_rows:
        vectors, words = data(rows, (sizes.level,) * 3, dim=sizes.dim)
        step, times = our_step(vectors, words), {"rounds": sizes.rounds, "calls": sizes.calls}
        yield compare_queued(f"quantizer/{rows}/products", step, products(vectors, words), **times)
        if importlib.util.find_spec("vector_quantize_pytorch"):
            other = torch_step(vectors, words, device=torch_device())
            yield compare(
                f"quantizer/{rows}/vector-quantize-pytorch",
                queued(step, calls=1),
                finished(other),
                rounds=sizes.rounds,
            )


def t5(sizes: Sizes) -> Iterator[dict]:
    """Times training steps of generators in bfloat16, and the same of transformers."""
    for name, config in sizes.generators.items():
        config = dataclasses.replace(config, dtype="bfloat16")
        step, state, batch = t5_step(config, sizes)
        # What is computed again in a backward pass is no work done.
        whole = dataclasses.replace(config, remat=False)
        work = operations(jax.make_jaxpr(t5_step(whole, sizes)[0])(state, batch).jaxpr).total()
        compiled = step.lower(state, batch).compile()
        gib = memory_of(compiled).temporaries / GIB
        yield line(f"t5/{name}/temporaries", gib, None, "GiB", ratio=None)
        state, batch = filled(state), random_batch(batch, config)

        def run() -> Any:
            nonlocal state
            state, metrics = compiled(state, batch)  # noqa: B023
            return metrics

        calls = min(sizes.calls, 10)
        took = milliseconds(queued(run, calls=calls), rounds=sizes.rounds) / calls
        yield line(f"t5/{name}/step", took, None, "ms", ratio=None)
        rate, chip = work / took / 1e9, chip_here()
        peak = chip and chip.flops / 1e12
        yield line(f"t5/{name}/rate", rate, peak, "TFLOP/s", ratio=peak and rate / peak)
        del state, batch, compiled
        if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
            other = milliseconds(finished(transformers_step(config, sizes)), rounds=sizes.rounds)
            yield line(f"t5/{name}/transformers", took, other, "ms", ratio=other / took)


def t5_step(config: T5Config, sizes: Sizes) -> tuple[Any, Any, Any]:
    """Returns the stage's step, and the shapes of its state and batch."""
    training = Training(
        epochs=1, batch_size=sizes.generator_rows, learning_rate=1e-2, optimizer="adafactor"
    )
    bound = {
        "prepare": {"vocabulary_size": sizes.vocabulary},
        "quantize": {"config": QuantizerConfig(codebook_sizes=sizes.codes, kind=ResidualKmeans())},
        "generate": {
            "config": config,
            "training": training,
            "objective": GeneratorObjective(),
            "curriculum": Curriculum(),
            "max_pieces": sizes.pieces,
        },
    }
    target = Target(topology="")  # devices are given
    step, (state, batch), _, _ = generate_step(bound, target, jax.devices()[:1])
    return step, state, batch


def filled(shapes: Any) -> Any:
    """Returns a state before the first step, its parameters small and random."""

    def made(key: jax.Array) -> Any:
        keys = iter(jax.random.split(key, len(jax.tree.leaves(shapes.params))))
        params = jax.tree.map(
            lambda like: 0.02 * jax.random.normal(next(keys), like.shape, like.dtype),
            shapes.params,
        )
        zeros = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)
        return zeros.replace(params=params)

    places = jax.tree.map(lambda like: like.sharding, shapes)
    return jax.jit(made, out_shardings=places)(jax.random.key(0))


def random_batch(shapes: dict[str, jax.ShapeDtypeStruct], config: T5Config) -> dict[str, jax.Array]:
    """Returns a batch of texts of full length and SIDs."""
    random = np.random.default_rng(0)
    text, targets = shapes["encoder_input_tokens"], shapes["decoder_target_tokens"]
    # Any codes do, and the first few of each level are there whatever its size is.
    sids = random.integers(0, 8, targets.shape).astype(np.int32)
    vocabulary = 100
    given = {
        "encoder_input_tokens": random.integers(3, vocabulary, text.shape).astype(np.int32),
        "decoder_target_tokens": to_tokens(sids, sizes=(8,) * 3, text_vocab_size=vocabulary),
        "decoder_loss_weights": np.ones(targets.shape, np.float32),
    }
    return {name: jax.device_put(given[name], like.sharding) for name, like in shapes.items()}


def chip_here() -> Chip | None:
    """Returns what this process's device can do at most; None where that is not known."""
    kind = jax.devices()[0].device_kind.lower()
    found = [name for part, name in CHIPS_BY_KIND.items() if part in kind]
    found += [name for name in CHIPS if name in kind]
    return CHIPS[found[0]] if found else None


def torch_device() -> str:
    """Returns the device that a rival runs on."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def finished(step: Callable[[], object]) -> Callable[[], None]:
    """Returns a function that waits for what a step of torch's has started."""
    import torch

    def run() -> None:
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def transformers_step(config: T5Config, sizes: Sizes) -> Callable[[], None]:
    """Returns a forward and backward pass of transformers' T5 of this shape, in bfloat16."""
    import torch
    import transformers

    described = rivals.t5_described(config, vocabulary=sizes.vocabulary + sum(sizes.codes))
    device = torch_device()
    model = transformers.T5ForConditionalGeneration(described).to(device).train()
    shape = (sizes.generator_rows, sizes.pieces)
    tokens = torch.randint(3, sizes.vocabulary, shape, device=device)
    labels = tokens[:, :3].contiguous()

    def run() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()

    return run
