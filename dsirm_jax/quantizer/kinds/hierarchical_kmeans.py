"""Hierarchical k-means, DSI-style: a tree of clusters of the dense vectors themselves."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, Int

from dsirm_jax.devices.precision import exact
from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer.codebooks import initial_codebooks, kmeans
from dsirm_jax.quantizer.kinds.kind import Fit
from dsirm_jax.quantizer.learning import Learning
from dsirm_jax.quantizer.model import Codebook, Codebooks, Identity, lowest, residual_quantize
from dsirm_jax.quantizer.training_items import TrainingItems

BRANCH_ROWS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class HierarchicalKmeans:
    """Clusters, the clusters of each cluster, and so on: codes mean other things by prefix.

    The clusters of a cluster, taken relative to its centre, are codewords of its residuals.
    """

    continues = False

    def module(self, *, dim: int) -> Identity:
        """See `Kind.module`."""
        del dim
        return Identity()

    def codebook(
        self, arrays: Mapping[str, Any], *, level: int, size: int
    ) -> Codebook | BranchingCodebook:
        """See `Kind.codebook`."""
        return BranchingCodebook(**arrays, size=size) if level else Codebook(**arrays)

    def fit(
        self,
        items: TrainingItems,
        *,
        sizes: tuple[int, ...],
        learning: Learning,
        directory: Path,
        start: Fit | None,
    ) -> Fit:
        """See `Kind.fit`: of `Upkeep.init_rows` items, at once."""
        del directory, start
        upkeep = learning.upkeep
        if not upkeep.init_rows:
            raise InputError(
                "gin binding Upkeep.init_rows is 0; hierarchical k-means is fitted to that many "
                "items: bind 1 or more"
            )
        sample = items.sample(most=upkeep.init_rows, seed=learning.seed)
        codebooks = hierarchical_codebooks(
            items.items[sample],
            sizes=sizes,
            pinned=None if items.pinned is None else items.pinned[sample],
            key=jax.random.key(learning.seed),
            iterations=upkeep.init_iterations,
        )
        return Fit({}, multihost_utils.broadcast_one_to_all(codebooks))

    def step(
        self, *, dim: int, sizes: tuple[int, ...], pinned: bool, learning: Learning, rows: int
    ) -> None:
        """See `Kind.step`: there is none."""
        del dim, sizes, pinned, learning, rows


class BranchingCodebook(struct.PyTreeNode):
    """One level of a hierarchical quantizer: every node of the level before has its own codewords.

    The children of node `n` are rows `first[n]` to `first[n + 1]` of `codewords`, each relative to
    the parent's prefix vector; a code is a child's place among them. A row of `codewords` is a node
    of the next level. The nodes below a `Codebook` are its codes.
    """

    codewords: Float[Array, "child dim"]
    first: Int[Array, " node+1"]
    size: int = struct.field(pytree_node=False)  # codes of the level: the most children of a node

    def costs(
        self, residual: Float[Array, "row dim"], node: Int[Array, " row"]
    ) -> Float[Array, "row code"]:
        """Returns `|e|²/2 - r·e` for a node's children, infinite for the codes that it lacks."""
        codewords, first = jnp.asarray(self.codewords), jnp.asarray(self.first)

        def row_costs(row: tuple[Array, Array, Array]) -> Float[Array, " code"]:
            vector, start, stop = row
            child = start + jnp.arange(self.size)
            words = codewords[jnp.minimum(child, stop - 1)]  # [code, dim]
            cost = 0.5 * jnp.sum(words**2, axis=-1) - words @ vector
            return jnp.where(child < stop, cost, jnp.inf)

        # Each row looks at codewords of its own: a part of the rows at a time bounds the memory.
        return jax.lax.map(
            row_costs, (residual, first[node], first[node + 1]), batch_size=BRANCH_ROWS
        )

    def children(self, node: Int[Array, "*rows"], code: Int[Array, "*rows"]) -> Int[Array, "*rows"]:
        """Returns the entries of `codewords` that codes stand for."""
        return self.first[node] + code

    def identity(self) -> tuple[Array, ...]:
        """Returns the arrays that decide what a code means."""
        return self.codewords, self.first


def hierarchical_codebooks(
    rows: Float[np.ndarray, "row dim"],
    *,
    sizes: tuple[int, ...],
    pinned: Int[np.ndarray, " row"] | None,
    key: jax.Array,
    iterations: int,
) -> Codebooks:
    """Returns the clusters of `rows`, the clusters of each cluster, and so on.

    A node with no more distinct rows than codes has a child for each of them.

    Args:
      rows: float32 `[row, dim]`.
      sizes: codes per level: the most children that a node has.
      pinned: see `residual_quantize`.
      key: random key.
      iterations: Lloyd iterations a node.

    Returns:
      A `Codebook`, then a `BranchingCodebook` for every further level. Source: the hierarchical
      clustering of DSI (Tay et al. 2022, arXiv 2202.06991), cut at a fixed number of levels.
    """
    first_pinned = None if pinned is None else jnp.asarray(pinned)
    codebooks: Codebooks = initial_codebooks(
        rows, sizes=sizes[:1], pinned=first_pinned, key=key, iterations=iterations
    )
    quantized = residual_quantize(jnp.asarray(rows), codebooks, pinned=first_pinned)
    node, nodes = np.asarray(quantized.codes[:, 0]), sizes[0]
    residual = rows - np.asarray(quantized.prefixes[:, 0])
    for level, size in enumerate(sizes[1:], start=1):
        order = np.argsort(node, kind="stable")
        bounds = np.searchsorted(node[order], np.arange(nodes + 1))
        children = [
            _children(
                residual[order[start:stop]],
                size=size,
                iterations=iterations,
                key=key,
                place=(level, number),
            )
            for number, (start, stop) in enumerate(itertools.pairwise(bounds))
        ]
        branches = BranchingCodebook(
            codewords=jnp.asarray(np.concatenate(children)),
            first=jnp.asarray(np.cumsum([0, *map(len, children)]), jnp.int32),
            size=size,
        )
        node = np.asarray(_nearest_child(branches, jnp.asarray(residual), jnp.asarray(node)))
        nodes = len(branches.codewords)
        residual = residual - np.asarray(branches.codewords)[node]
        codebooks = (*codebooks, branches)
    return codebooks


def _children(
    members: Float[np.ndarray, "row dim"],
    *,
    size: int,
    iterations: int,
    key: jax.Array,
    place: tuple[int, int],
) -> Float[np.ndarray, "child dim"]:
    if not len(members):
        # A pinned category without a row: its one child is its own codeword.
        return np.zeros((1, members.shape[1]), np.float32)
    distinct = np.unique(members, axis=0)
    if len(distinct) <= size:
        return distinct
    for number in place:
        key = jax.random.fold_in(key, number)
    length = 1 << (len(members) - 1).bit_length()
    padded = np.pad(members, ((0, length - len(members)), (0, 0)))
    return np.asarray(kmeans(padded, key=key, size=size, iterations=iterations, used=len(members)))


@jax.jit
@exact
def _nearest_child(
    branches: BranchingCodebook, residual: Float[Array, "row dim"], node: Int[Array, " row"]
) -> Int[Array, " row"]:
    return branches.children(node, lowest(branches.costs(residual, node)))
