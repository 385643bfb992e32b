"""The chips that steps are compiled for, and what their makers say they can do at most."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from dsirm_jax.io.errors import InputError

GIB = 2**30
TPU_PASSES = {"default": 1, "high": 3, "highest": 6}
"""Of the parts in bfloat16 that a TPU splits float32 into, see `jax.lax.Precision`."""
HOPPER_PASSES = {"default": 2, "high": 2, "highest": 989 / 67}
"""In TF32, or on no tensor core."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """Published peaks of one chip.

    Attributes:
      flops: bfloat16 operations a second.
      memory: bytes of its own memory.
      bandwidth: bytes a second from and to that memory.
      interconnect: bytes a second that it sends to other chips, over all links; as many come in.
      source: where these are published.
      host: shape of the slice that one host has.
      topology: further arguments of `get_topology_desc`; None: nothing here compiles for it, and
        the CPU's compiler stands in.
      passes: products of bfloat16 that take as long as one of float32, by its precision, one of
        `precision.PRECISIONS`.
    """

    flops: float
    memory: int
    bandwidth: float
    interconnect: float
    source: str
    host: str
    topology: Mapping[str, Any] | None = dataclasses.field(default_factory=dict)
    passes: Mapping[str, float] = dataclasses.field(default_factory=lambda: TPU_PASSES)


CHIPS = {
    "v4": Chip(
        flops=275e12,
        memory=32 * GIB,
        bandwidth=1228e9,
        interconnect=300e9,
        source="https://cloud.google.com/tpu/docs/v4",
        host="2x2x1",
        topology={"chip_config_name": "megacore", "chips_per_host_bounds": (2, 2, 1)},
    ),
    "v5e": Chip(
        flops=197e12,
        memory=16 * GIB,
        bandwidth=819e9,
        interconnect=200e9,
        source="https://cloud.google.com/tpu/docs/v5e",
        host="2x2",
    ),
    "v5p": Chip(
        flops=459e12,
        memory=95 * GIB,
        bandwidth=2765e9,
        interconnect=600e9,
        source="https://cloud.google.com/tpu/docs/v5p",
        host="2x2x1",
    ),
    "v6e": Chip(
        flops=918e12,
        memory=32 * GIB,
        bandwidth=1640e9,
        interconnect=400e9,
        source="https://cloud.google.com/tpu/docs/v6e",
        host="2x2",
    ),
    "h100": Chip(
        flops=989e12,
        memory=80 * 10**9,
        bandwidth=3350e9,
        interconnect=450e9,
        source="https://www.nvidia.com/en-us/data-center/h100",
        host="8",
        topology=None,
        passes=HOPPER_PASSES,
    ),
    "h200": Chip(
        flops=989e12,
        memory=141 * 10**9,
        bandwidth=4800e9,
        interconnect=450e9,
        source="https://www.nvidia.com/en-us/data-center/h200",
        host="8",
        topology=None,
        passes=HOPPER_PASSES,
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """Chips that work together.

    Attributes:
      name: `GENERATION:SHAPE`, e.g. `v5e:16x16` or `h100:8`.
    """

    name: str

    def __post_init__(self) -> None:
        kind, _, shape = self.name.partition(":")
        sizes = shape.split("x")
        if kind not in CHIPS or not all(size.isdecimal() and int(size) for size in sizes):
            raise InputError(
                f"topology {self.name!r}: give GENERATION:SHAPE, such as v5e:4x4, with one of "
                f"{', '.join(CHIPS)}"
            )

    @property
    def chip(self) -> Chip:
        """Returns what one of them can do."""
        return CHIPS[self.name.partition(":")[0]]

    @property
    def size(self) -> int:
        """Returns the number of chips."""
        return math.prod(map(int, self.name.partition(":")[2].split("x")))

    def host(self) -> Slice:
        """Returns the slice that one of its hosts has."""
        one = Slice(name=f"{self.name.partition(':')[0]}:{self.chip.host}")
        return one if one.size < self.size else self

    def devices(self) -> Sequence[jax.Device]:
        """Returns the chips as JAX has them for compilation, or CPU devices that stand in.

        Raises:
          InputError: the compiler is missing, or there is no slice of that shape.
        """
        if self.chip.topology is None:
            return jax.devices("cpu")[: self.size]
        from jax.experimental import topologies

        try:
            described = topologies.get_topology_desc(
                platform="tpu", topology_name=self.name, **self.chip.topology
            )
        except Exception as error:  # whatever libtpu has to say
            reason = str(error).splitlines()[0]
            raise InputError(
                f"topology {self.name}: {reason}; the compiler is libtpu, which "
                f"pip install '.[tpu]' in a checkout brings"
            ) from error
        return described.devices
