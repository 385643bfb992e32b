"""What a step takes of device and host, logged and checked before the first one is taken."""

from __future__ import annotations

import dataclasses
import logging
import os
import resource
from typing import Any

import jax

from dsirm_jax.io.errors import InputError

log = logging.getLogger(__name__)
REMEDY = (
    "bind a smaller Training.batch_size (and Training.accumulate_steps, to average as many rows), "
    "more devices, or, of the generator, generate.run.model_parallel or the remat of its "
    "architecture"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one device.

    Attributes:
      arguments: state and batch.
      outputs: the new state and metrics, as far as they do not take the place of arguments.
      temporaries: what is alive at once in between.
      code: the program.
    """

    arguments: int
    outputs: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """Returns all of it."""
        return self.arguments + self.outputs + self.temporaries + self.code


def check_fits(step: Any, state: Any, batch: Any, *, name: str) -> None:
    """Compiles a step, logs the memory that it takes, and refuses one that does not fit.

    Args:
      step: what `jax.jit` or `jax.pmap` made; it is not compiled again when it is called.
      state: on the devices.
      batch: as the step wants it.
      name: stage name for the log and errors.

    Raises:
      InputError: it takes more memory than a device, or the host of CPU devices, has.
    """
    try:
        taken = memory_of(step.lower(state, batch).compile())
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(f"{name}: {str(error).splitlines()[0]}; {REMEDY}") from error
    room, used, total = device_memory(), host_memory_used(), host_memory()
    log.info(
        "%s: a step takes %s of a device's %s (arguments %s, outputs %s, temporaries %s, code %s); "
        "this process has taken at most %s of the host's %s",
        *(name, _gb(taken.total), _gb(room), _gb(taken.arguments), _gb(taken.outputs)),
        *(_gb(taken.temporaries), _gb(taken.code), _gb(used), _gb(total)),
    )
    if taken.total > room:
        raise InputError(
            f"{name}: a step takes {_gb(taken.total)} of each device's {_gb(room)}; {REMEDY}"
        )


def memory_of(compiled: Any) -> Memory:
    """Returns the memory of a compiled program on one device."""
    analysis = compiled.memory_analysis()
    return Memory(
        arguments=analysis.argument_size_in_bytes,
        outputs=analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        code=analysis.generated_code_size_in_bytes,
    )


def device_memory() -> int:
    """Returns the bytes that a program may take on each device of this process."""
    device, *others = jax.local_devices()
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit") or host_memory() // (1 + len(others))


def host_memory() -> int:
    """Returns the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def host_memory_used() -> int:
    """Returns the most bytes that this process has had in memory at once."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
