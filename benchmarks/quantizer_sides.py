"""The quantizer's step and its rivals, on the same arrays; steps do not wait for their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dsirm_jax.quantizer.codebooks import Upkeep, moved
from dsirm_jax.quantizer.losses import commitment_loss, reconstruction_loss
from dsirm_jax.quantizer.model import Codebook, residual_quantize, straight_through

DIM = 256


def data(
    rows: int, sizes: tuple[int, ...], *, dim: int = DIM
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns vectors, and codewords drawn from the residuals: codes are used about evenly."""
    generator = np.random.Generator(np.random.Philox(key=0))
    vectors = generator.normal(size=(rows, dim)).astype(np.float32)
    words, residual = [], vectors
    for size in sizes:
        chosen = residual[generator.choice(rows, size, replace=size > rows)]
        words.append((0.5 * chosen).astype(np.float32))
        code = np.argmin(0.5 * np.sum(words[-1] ** 2, axis=1) - residual @ words[-1].T, axis=1)
        residual = residual - words[-1][code]
    return vectors, words


def codebooks_of(words: Sequence[np.ndarray]) -> tuple[Codebook, ...]:
    """Returns codebooks of these codewords, each of which one row has."""
    return tuple(
        Codebook(codewords=jnp.asarray(w), count=jnp.ones(len(w)), total=jnp.asarray(w))
        for w in words
    )


def our_step(vectors: np.ndarray, words: Sequence[np.ndarray]) -> Callable[[], object]:
    """Returns a step like ResidualVQ's: gradient to the vectors, moving averages, restarts."""
    upkeep = Upkeep(decay=0.99, restart_below=0.1, init_rows=0, init_iterations=0)

    def loss_fn(latents, codebooks):
        quantized = residual_quantize(latents, codebooks)
        passed = straight_through(latents, quantized.prefixes[:, -1])
        commitment = commitment_loss(quantized.residuals, quantized.prefixes)
        return jnp.mean(reconstruction_loss(2 * latents, passed) + commitment), quantized

    def step(codebooks, latents, key):
        gradient, quantized = jax.grad(loss_fn, has_aux=True)(latents, codebooks)
        codebooks, _ = moved(
            codebooks, quantized, upkeep=upkeep, pinned=False, key=key, axis="data"
        )
        return codebooks, gradient

    devices = jax.devices()[:1]
    pmapped = jax.pmap(step, axis_name="data", devices=devices, donate_argnums=0)
    state = jax.tree.map(lambda array: array[None], codebooks_of(words))
    latents, key = jnp.asarray(vectors)[None], jax.random.key(0)[None]

    def run() -> object:
        nonlocal state
        state, gradient = pmapped(state, latents, key)
        return state, gradient

    return run


def products(vectors: np.ndarray, words: Sequence[np.ndarray]) -> Callable[[], object]:
    """Returns the matrix products that no exact assignment can do without, in full float32."""
    full = jax.lax.Precision.HIGHEST

    @jax.jit
    def multiplied(latents, words):
        return [jnp.matmul(latents, codewords.T, precision=full) for codewords in words]

    arguments = jax.device_put((vectors, list(words)))
    return lambda: multiplied(*arguments)


def residual_vq(words: Sequence[np.ndarray]):
    """Returns vector-quantize-pytorch's quantizer with these codewords."""
    import torch
    from vector_quantize_pytorch import ResidualVQ

    other = ResidualVQ(
        dim=words[0].shape[1],
        num_quantizers=len(words),
        codebook_size=len(words[0]),
        decay=0.99,
        threshold_ema_dead_code=1,
    )
    with torch.no_grad():
        for layer, codewords in zip(other.layers, words, strict=True):
            for name in ("embed", "embed_avg"):
                getattr(layer._codebook, name).copy_(torch.from_numpy(codewords)[None])
            # As if a batch of eight rows a code had been seen.
            layer._codebook.cluster_size.fill_(8.0)
    return other


def torch_step(
    vectors: np.ndarray, words: Sequence[np.ndarray], *, device: str = "cpu"
) -> Callable[[], None]:
    """Returns its training step, on a device of torch's; see `our_step`."""
    import torch

    other = residual_vq(words).train().to(device)
    latents = torch.from_numpy(vectors).to(device).requires_grad_()

    def run() -> None:
        latents.grad = None
        quantized, _, commitment = other(latents)
        (((2 * latents - quantized) ** 2).sum(-1).mean() + commitment.sum()).backward()

    return run
