"""Where state and batches live: replicated for `pmap`, or sharded over a mesh for `jit`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import jax_utils
from flax.linen import partitioning
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dsirm_jax.io.checks import check_whole
from dsirm_jax.io.errors import InputError

if TYPE_CHECKING:
    import optax

DATA_AXIS = "data"
MODEL_AXIS = "model"
MESH_AXES = (
    ("vocab", MODEL_AXIS),
    ("heads", MODEL_AXIS),
    ("joined_kv", MODEL_AXIS),
    ("mlp", MODEL_AXIS),
    ("embed", None),
    ("layers", None),
    ("relpos_buckets", None),
)
"""The mesh axis that splits each logical axis of a parameter; batches are split over `data`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """How a step wants its arguments.

    Attributes:
      put_state: host state to device state.
      put_batch: global host batch (rows leading), the same on every process, to device batch.
      get_state: device state to the state that is checkpointed and returned.
      state_like: shapes of the host state to shapes of the device state, for compilation.
      batch_like: shapes of the global batch to shapes of the device batch, likewise.
    """

    put_state: Callable[[Any], Any]
    put_batch: Callable[[Any], Any]
    get_state: Callable[[Any], Any]
    state_like: Callable[[Any], Any]
    batch_like: Callable[[Any], Any]


def check_divisible(batch_size: int, devices: int) -> None:
    """Raises InputError where devices cannot share the rows of a batch."""
    if batch_size % devices:
        raise InputError(
            f"batch_size {batch_size} is not divisible by the {devices} devices; "
            f"bind Training.batch_size to a multiple of {devices}"
        )


def pmapped(devices: Sequence[jax.Device] | None = None) -> Placement:
    """Returns the placement of a pmapped step: state replicated, rows split over the devices.

    Args:
      devices: in order, those of a process one after the other; all of every process when not
        given.
    """
    devices = list(devices or jax.devices())
    local = [device for device in devices if device.process_index == jax.process_index()]
    first = devices.index(local[0])

    def put_state(state: Any) -> Any:
        # Hosts may differ in the last bits of what they computed alone; replicas must not.
        return jax_utils.replicate(multihost_utils.broadcast_one_to_all(state), local, DATA_AXIS)

    def local_rows(array: np.ndarray) -> np.ndarray:
        check_divisible(len(array), len(devices))
        rows = array.reshape(len(devices), -1, *array.shape[1:])  # [device, row, ...]
        return rows[first : first + len(local)]

    def replica_like(shape: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((len(devices), *shape.shape), shape.dtype)

    def rows_like(shape: Any) -> jax.ShapeDtypeStruct:
        check_divisible(shape.shape[0], len(devices))
        rows = shape.shape[0] // len(devices)
        return jax.ShapeDtypeStruct((len(devices), rows, *shape.shape[1:]), shape.dtype)

    return Placement(
        put_state=put_state,
        put_batch=lambda batch: jax.tree.map(local_rows, batch),
        # flax's unreplicate keeps the device axis on one device of many.
        get_state=lambda state: jax.tree.map(
            lambda x: np.asarray(x.addressable_data(0))[0, ...], state
        ),
        state_like=lambda state: jax.tree.map(replica_like, state),
        batch_like=lambda batch: jax.tree.map(rows_like, batch),
    )


def data_mesh(devices: Sequence[jax.Device] | None = None, *, model_parallel: int = 1) -> Mesh:
    """Returns a mesh with axes `data` and `model` over the devices.

    Args:
      devices: the devices; all of them when not given.
      model_parallel: size of the model axis; must divide the number of devices.

    Raises:
      InputError: it does not.
    """
    check_whole("generate.run.model_parallel", model_parallel, least=1)
    devices = list(devices or jax.devices())
    if len(devices) % model_parallel:
        raise InputError(
            f"model_parallel {model_parallel} does not divide the {len(devices)} devices"
        )
    shape = (len(devices) // model_parallel, model_parallel)
    return Mesh(
        np.asarray(devices).reshape(shape),
        (DATA_AXIS, MODEL_AXIS),
        axis_types=(AxisType.Auto, AxisType.Auto),
    )


def sharded(mesh: Mesh, *, state_shardings: Any = None) -> Placement:
    """Returns the placement of a jitted step on a mesh: rows split over the data axis.

    Args:
      mesh: see `data_mesh`.
      state_shardings: tree of shardings like the state; replicated when not given.
    """
    rows = NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    state_shardings = state_shardings or NamedSharding(mesh, PartitionSpec())

    def put_rows(array: np.ndarray) -> jax.Array:
        check_divisible(len(array), mesh.shape[DATA_AXIS])
        if rows.is_fully_addressable:
            return jax.device_put(array, rows)
        # A device_put would have the processes compare their batches first.
        return jax.make_array_from_callback(array.shape, rows, lambda index: array[index])

    def like(shape: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    def state_like(state: Any) -> Any:
        if isinstance(state_shardings, NamedSharding):
            return jax.tree.map(lambda shape: like(shape, state_shardings), state)
        return jax.tree.map(like, state, state_shardings)

    def rows_like(shape: Any) -> jax.ShapeDtypeStruct:
        check_divisible(shape.shape[0], mesh.shape[DATA_AXIS])
        return like(shape, rows)

    return Placement(
        put_state=lambda state: jax.device_put(state, state_shardings),
        put_batch=lambda batch: jax.tree.map(put_rows, batch),
        get_state=lambda state: state,
        state_like=state_like,
        batch_like=lambda batch: jax.tree.map(rows_like, batch),
    )


def param_shardings(mesh: Mesh, *, axes: Any, shapes: Any) -> Any:
    """Returns where the parameters of a model lie, by `MESH_AXES`.

    Args:
      mesh: see `data_mesh`.
      axes: tree of the names of each parameter's logical axes.
      shapes: the same tree of arrays, or of their shapes and dtypes.

    Raises:
      InputError: the model axis does not divide a dimension that it is to split.
    """

    def sharding(names: PartitionSpec, array: Any) -> NamedSharding:
        spec = partitioning.logical_to_mesh_axes(tuple(names), MESH_AXES)
        assert spec is not None  # it is for names that are None
        for name, axis, size in zip(names, spec, array.shape, strict=True):
            if axis and size % mesh.shape[axis]:
                raise InputError(
                    f"model_parallel {mesh.shape[axis]} does not divide axis {name} of size {size}"
                )
        return NamedSharding(mesh, spec)

    return jax.tree.map(sharding, axes, shapes)


def optimizer_shardings(
    mesh: Mesh, *, optimizer: optax.GradientTransformation, params: Any, shardings: Any
) -> Any:
    """Returns where an optimizer's state lies: what has a parameter's shape, as that parameter.

    The rest is small (step counts, Adafactor's factors) and replicated.

    Args:
      mesh: see `data_mesh`.
      optimizer: the optimizer.
      params: the parameters, or their shapes and dtypes.
      shardings: theirs, see `param_shardings`.
    """
    import optax

    everywhere = NamedSharding(mesh, PartitionSpec())
    return optax.tree_utils.tree_map_params(
        optimizer,
        lambda moment, param, place: place if moment.shape == param.shape else everywhere,
        jax.eval_shape(optimizer.init, params),
        params,
        shardings,
        transform_non_params=lambda _: everywhere,
    )
