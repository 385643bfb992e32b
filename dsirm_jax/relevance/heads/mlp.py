"""A network over standardised features, fitted by gradient steps."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from dsirm_jax.devices.precision import FASTEST, multiplying
from dsirm_jax.io.checks import check_holds, is_whole
from dsirm_jax.io.records import LATER
from dsirm_jax.relevance.heads.head import (
    BINARY,
    GRADED,
    RANKING,
    Fitting,
    StepProgram,
    check_loss,
    check_ranking,
    num_outputs,
    ranks,
    relevance_logits,
)
from dsirm_jax.relevance.heads.onnx_graph import Graph
from dsirm_jax.relevance.pairs import LabelledPairs
from dsirm_jax.training.batches import cut_batches, index_batches, visits

if TYPE_CHECKING:
    import optax

    from dsirm_jax.training.loop import TrainState
    from dsirm_jax.training.settings import Training

MOST_DEVIATIONS = 5.0  # A feature far outside what training saw must not run away with the score.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mlp:
    """A multi-layer perceptron.

    Attributes:
      hidden: units of each hidden layer.
      loss: "binary", cross-entropy of relevant against not; "graded", cross-entropy over the grades
        of the judgements, whose probabilities add up to that of being relevant; "ranking", nothing
        but the two that follow.
      listwise: weight of a cross-entropy within each query, over its pairs by gain, that is added.
      pairwise: likewise of `losses.pairwise_loss`, whose memory is the batch squared.
    """

    hidden: tuple[int, ...] = (64, 32)
    loss: str = BINARY
    listwise: float = 0.0
    pairwise: float = dataclasses.field(default=0.0, metadata=LATER)

    def __post_init__(self) -> None:
        check_holds(
            isinstance(self.hidden, tuple)
            and bool(self.hidden)
            and all(is_whole(units, least=1) for units in self.hidden),
            binding="Mlp.hidden",
            value=self.hidden,
            remedy="a tuple of the units of one hidden layer or more, such as (64, 32)",
        )
        check_loss(self, losses=(BINARY, GRADED, RANKING))
        check_ranking(self)

    def params_like(self, *, features: int, grades: int) -> MlpParams:
        fresh = functools.partial(
            initial_params, self, np.zeros((1, features), np.float32), grades=grades, seed=0
        )
        return jax.eval_shape(fresh)

    def fit(self, pairs: LabelledPairs, fitting: Fitting) -> MlpParams:
        """Fits by `training.loop.fit`.

        Raises:
          FloatingPointError: the loss was not finite.
            Source: an MLP head as in Wang et al. 2026, arXiv 2606.04374 (secondary note).
        """
        from dsirm_jax.training.loop import fit
        from dsirm_jax.training.meshes import data_mesh, sharded
        from dsirm_jax.training.settings import make_optimizer

        training = fitting.training
        num_steps = training.num_steps(len(pairs))
        optimizer = make_optimizer(training, num_steps=num_steps)
        grades = len(pairs.relevant)
        params = initial_params(self, pairs.features, grades=grades, seed=fitting.seed)
        state = fit(
            name=fitting.name,
            state=initial_state(params, optimizer),
            step=make_step(
                self, optimizer, relevant=pairs.relevant, precision=training.matmul_precision
            ),
            batches=functools.partial(
                labelled_batches,
                pairs,
                size=training.batch_size,
                lists=ranks(self),
                seed=fitting.seed,
            ),
            num_steps=num_steps,
            directory=fitting.directory,
            training=training,
            placement=sharded(data_mesh()),
        )
        return jax.device_get(state.params)

    def outputs(
        self, params: MlpParams, features: Float[Array, "pair feature"], *, grades: int
    ) -> Float[Array, "pair output"]:
        standardised = (features - params.mean) / params.scale
        clipped = jnp.clip(standardised, -MOST_DEVIATIONS, MOST_DEVIATIONS)
        module = network(self, grades=grades)
        return jnp.asarray(module.apply({"params": params.network}, clipped))

    def add_to(self, graph: Graph, params: MlpParams, features: str, *, grades: int) -> str:
        ends = (np.array(end, np.float32) for end in (-MOST_DEVIATIONS, MOST_DEVIATIONS))
        centred = graph.add("Sub", features, np.asarray(params.mean))
        x = graph.add("Clip", graph.add("Div", centred, np.asarray(params.scale)), *ends)
        for layer in range(len(self.hidden) + 1):
            dense = params.network[f"Dense_{layer}"]
            x = graph.add(
                "MatMul", x if layer == 0 else _gelu(graph, x), np.asarray(dense["kernel"])
            )
            x = graph.add("Add", x, np.asarray(dense["bias"]))
        return x

    def step_programs(
        self, training: Training, *, rows: int, features: int, relevant: tuple[bool, ...]
    ) -> tuple[StepProgram, ...]:
        from dsirm_jax.training.settings import make_optimizer

        optimizer = make_optimizer(training, num_steps=training.num_steps(rows))
        params = self.params_like(features=features, grades=len(relevant))
        state = jax.eval_shape(functools.partial(initial_state, optimizer=optimizer), params)
        step = make_step(self, optimizer, relevant=relevant, precision=training.matmul_precision)
        return (StepProgram(step, state, batch_spec(training.batch_size, features=features)),)


class MlpParams(struct.PyTreeNode):
    """What an `Mlp` has learnt.

    Attributes:
      network: parameters of `Network`.
      mean: float32 `[feature]`, of the training pairs.
      scale: float32 `[feature]`, their standard deviation; 1 for a constant feature.
    """

    network: Any
    mean: Float[Array, " feature"]
    scale: Float[Array, " feature"]


class Network(nn.Module):
    """From standardised features to outputs, which are 0 at first."""

    hidden: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "pair feature"]) -> Float[Array, "pair output"]:
        for units in self.hidden:
            x = nn.gelu(nn.Dense(units)(x))
        return nn.Dense(self.outputs, kernel_init=nn.initializers.zeros)(x)


def _gelu(graph: Graph, x: str) -> str:
    """Adds `nn.gelu`, by its tanh."""
    root, cubic, half, one, three = (
        np.array(number, np.float32) for number in (np.sqrt(2 / np.pi), 0.044715, 0.5, 1, 3)
    )
    cube = graph.add("Mul", graph.add("Pow", x, three), cubic)
    slope = graph.add("Tanh", graph.add("Mul", graph.add("Add", x, cube), root))
    return graph.add("Mul", x, graph.add("Mul", graph.add("Add", slope, one), half))


def network(head: Mlp, *, grades: int) -> Network:
    """Returns the module of a head."""
    return Network(head.hidden, num_outputs(head, grades=grades))


def initial_params(
    head: Mlp, features: Float[np.ndarray, "pair feature"], *, grades: int, seed: int
) -> MlpParams:
    """Returns fresh parameters, with the mean and standard deviation of `features`."""
    deviation = features.std(axis=0, dtype=np.float64)
    module = network(head, grades=grades)
    return MlpParams(
        network=module.init(jax.random.key(seed), features[:1])["params"],
        mean=jnp.asarray(features.mean(axis=0, dtype=np.float64), jnp.float32),
        scale=jnp.asarray(np.where(deviation > 1e-6, deviation, 1.0), jnp.float32),
    )


def initial_state(params: MlpParams, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state of training before its first step."""
    from dsirm_jax.training.loop import TrainState

    return TrainState(
        step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params.network)
    )


def batch_spec(rows: int, *, features: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the arrays of a batch: columns of `LabelledPairs`, of which `queries` counts anew."""
    shape = jax.ShapeDtypeStruct
    return {
        "features": shape((rows, features), jnp.float32),
        "labels": shape((rows,), jnp.bool_),
        "grades": shape((rows,), jnp.int32),
        "gains": shape((rows,), jnp.float32),
        "weights": shape((rows,), jnp.float32),
        "queries": shape((rows,), jnp.int32),
    }


def labelled_batches(
    pairs: LabelledPairs, start: int, *, size: int, lists: bool, seed: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches as `batch_spec` describes them, without end.

    Args:
      pairs: in random order.
      start: first step to yield.
      size: pairs in a batch.
      lists: the pairs of a query follow each other, for a loss within queries.
      seed: seed of the order.
    """
    order = {"batch_size": size, "seed": seed, "start": start}
    if lists:
        orders = query_batches(queries=pairs.queries, **order)
    else:
        orders = index_batches(rows=len(pairs), **order)
    columns = {
        name: np.asarray(getattr(pairs, name), column.dtype)
        for name, column in batch_spec(size, features=pairs.features.shape[1]).items()
    }
    for rows in orders:
        batch = {name: values[rows] for name, values in columns.items()}
        within = np.unique(batch["queries"], return_inverse=True)[1]
        yield batch | {"queries": within.astype(np.int32)}


def make_step(
    head: Mlp,
    optimizer: optax.GradientTransformation,
    *,
    relevant: tuple[bool, ...],
    precision: str = FASTEST,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns the compiled `(state, batch) -> (state, metrics)`; only the network is learnt."""
    import optax

    from dsirm_jax.relevance.losses import binary_loss, graded_loss, listwise_loss, pairwise_loss

    def loss_fn(network: Any, params: MlpParams, batch: dict[str, jax.Array]) -> Float[Array, ""]:
        params = params.replace(network=network)
        outputs = head.outputs(params, batch["features"], grades=len(relevant))
        log_odds = relevance_logits(outputs, relevant)
        weights = batch["weights"]
        if head.loss == RANKING:
            loss = jnp.zeros(())
        elif outputs.shape[1] == 1:
            loss = binary_loss(log_odds, batch["labels"], weights)
        else:
            loss = graded_loss(outputs, batch["grades"], weights)
        lists = (log_odds, batch["gains"], weights, batch["queries"])
        if head.listwise:
            loss += head.listwise * listwise_loss(*lists)
        if head.pairwise:
            loss += head.pairwise * pairwise_loss(*lists)
        return loss

    @jax.jit(donate_argnums=0)
    @multiplying(precision)
    def step(
        state: TrainState, batch: dict[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        params = state.params
        loss, gradients = jax.value_and_grad(loss_fn)(params.network, params, batch)
        updates, opt_state = optimizer.update(gradients, state.opt_state, params.network)
        network = jax.tree.map(jnp.add, params.network, updates)
        state = state.replace(
            step=state.step + 1, params=params.replace(network=network), opt_state=opt_state
        )
        return state, {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}

    return step


def query_batches(
    *, queries: Int[np.ndarray, " pair"], batch_size: int, seed: int, start: int = 0
) -> Iterator[Int[np.ndarray, " batch_size"]]:
    """Yields row numbers batch by batch, without end; the pairs of a query follow each other.

    A query at the border of two batches is cut in two lists.

    Args:
      queries: number of each pair's query.
      batch_size: rows in a batch.
      seed: seed of the order.
      start: first step to yield.
    """
    rows = np.argsort(queries, kind="stable")
    sizes = np.unique(queries, return_counts=True)[1]
    first = np.cumsum(sizes) - sizes
    visited = visits(sizes=sizes.tolist(), seed=seed, start=start * batch_size)
    ordered = (rows[first[query] + within] for query, within in visited)
    return cut_batches(ordered, itertools.repeat(batch_size))
