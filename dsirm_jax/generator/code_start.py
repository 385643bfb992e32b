"""What codes are read and written by before training, made of what is known of them.

A fresh network knows nothing of a code. Here its row points where something known of the code does:
the mean embedding of the titles of the items that have it, or its codeword, turned at random into
the network's space. Rows keep the mean of the fresh ones, and the length of their deviation from
it, so that the network starts with the activations that it would have.

Sources: codes as new tokens of a language model that learns what they mean, LC-Rec, arXiv
2311.09049, and GRID, arXiv 2507.22224; new rows as means of those of pieces are customary where
vocabularies grow; random orthogonal maps: Johnson & Lindenstrauss 1984.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.generator.architectures.architecture import Architecture, GeneratorParams

if TYPE_CHECKING:
    from dsirm_jax.quantizer.model import Codebooks


Directions = tuple[Float[np.ndarray, "_code dim"], ...]
"""What is known of each code of each level; zeros where nothing is."""


def title_directions(
    embedding: Float[np.ndarray, "token emb"],
    pieces: Sequence[Sequence[int]],
    sids: Int[np.ndarray, "item level"],
    *,
    sizes: Sequence[int],
) -> Directions:
    """Returns the mean embedding of the titles of the items that have each code, at each level.

    Args:
      embedding: rows of text tokens.
      pieces: tokens of each item's title; the mean of their rows stands for it.
      sids: codes of the items.
      sizes: codes per level.
    """
    from scipy import sparse

    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.fromiter(itertools.chain.from_iterable(pieces), np.int64, starts[-1])
    shares = np.repeat(1 / np.maximum(lengths, 1), lengths)
    titles = sparse.csr_array((shares, tokens, starts), shape=(len(pieces), len(embedding)))
    items = np.arange(len(pieces))
    # Of a code the shares of tokens, and of these the rows: no dense array is of all titles.
    return tuple(
        (_shares(codes, items, shape=(size, len(items))) @ titles @ embedding).astype(np.float32)
        for codes, size in zip(sids.T, sizes, strict=True)
    )


def codeword_directions(
    codebooks: Codebooks, sids: Int[np.ndarray, "item level"], *, width: int, seed: int
) -> Directions:
    """Returns each code's codeword, turned into another space without a change of angles.

    Where codewords differ by the codes before, it is their mean over the items that have the code.
    More dimensions than `width` are projected.

    Args:
      codebooks: one per level.
      sids: codes of the items.
      width: of the space.
      seed: of the map, which all levels share.
    """
    dim = codebooks[0].codewords.shape[1]
    random = np.random.Generator(np.random.Philox(key=seed))
    square, triangle = np.linalg.qr(random.normal(size=(max(dim, width),) * 2))
    turn = (square * np.sign(np.diag(triangle)))[:dim, :width]
    node, directions = jnp.zeros(len(sids), jnp.int32), []
    for codes, book in zip(sids.T, codebooks, strict=True):
        node = book.children(node, jnp.asarray(codes))
        words = np.asarray(book.codewords)
        means = _shares(codes, np.asarray(node), shape=(book.size, len(words))) @ words
        directions.append((means @ turn).astype(np.float32))
    return tuple(directions)


def started(
    config: Architecture, params: GeneratorParams, directions: Directions
) -> GeneratorParams:
    """Returns parameters whose codes are read by rows that have these directions.

    Args:
      config: of the network.
      params: its parameters before training.
      directions: of the codes, as wide as its embedding.
    """
    of_text, of_codes = config.parted(params)
    of_codes = dict(of_codes)
    for level, towards in enumerate(directions):
        if (name := f"codes_{level}") in of_codes:
            of_codes[name] = pointed(np.asarray(of_codes[name]), towards)
    return jax.tree.map(np.asarray, config.joined(of_text, of_codes))


def pointed(
    fresh: Float[np.ndarray, "code emb"], towards: Float[np.ndarray, "code emb"]
) -> Float[np.ndarray, "code emb"]:
    """Returns rows that deviate from their mean in other directions, by as much.

    Args:
      fresh: rows, of which what is known nothing of keeps its own.
      towards: directions from the mean of those known; zeros where nothing is known.
    """
    known = np.any(towards != 0, axis=1)
    centre = fresh.mean(axis=0)
    length = np.sqrt(np.mean(np.sum((fresh - centre) ** 2, axis=1)))
    towards = towards - towards[known].mean(axis=0) if known.any() else towards
    norms = np.linalg.norm(towards, axis=1)
    known &= norms > 0
    rows = fresh.copy()
    rows[known] = centre + length * towards[known] / norms[known, None]
    return rows


def _shares(
    codes: Int[np.ndarray, " item"], places: Int[np.ndarray, " item"], *, shape: tuple[int, int]
) -> Any:
    """Returns how the items of each code are spread over places, a sparse `[code, place]`."""
    from scipy import sparse

    counts = np.bincount(codes, minlength=shape[0])
    return sparse.csr_array((1 / counts[codes], (codes, places)), shape=shape)
