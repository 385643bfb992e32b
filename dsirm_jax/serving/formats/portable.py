"""Functions as StableHLO that other versions of JAX, and TensorFlow, read."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import export

from dsirm_jax.devices.precision import exact
from dsirm_jax.serving.bundle.manifest import Programs

PLATFORMS = ("cpu", "cuda", "tpu")
VERSION = "1.8.0"
"""The StableHLO that programs are written in, which JAX 0.10 to 0.12 and TensorFlow 2.21 read. JAX
by itself writes for readers that are at most four weeks older than it."""
PASSES = "builtin.module(func.func(stablehlo-legalize-composite-to-call))"
"""Older readers know no composites, such as top-k and, from JAX 0.12 on, the error function: each
becomes a call of the decomposition that it carries along."""


def exported(function: Callable[..., Any], *arguments: Any) -> export.Exported:
    """Returns a function as a program of `VERSION` for `PLATFORMS`, exact on each of them.

    Args:
      function: of arrays in containers.
      arguments: their `jax.ShapeDtypeStruct`s, whose dimensions may be symbolic.

    Returns:
      The program; its text names no file of this machine.
    """
    from jax.extend.mlir import ir, passmanager
    from jax.extend.mlir.dialects import stablehlo
    from jax.interpreters import mlir

    program = export.export(jax.jit(exact(function)), platforms=PLATFORMS)(*arguments)
    stablehlo.register_stablehlo_passes()
    with mlir.make_ir_context():
        module = ir.Module.parse(program.mlir_module())
        passmanager.PassManager.parse(PASSES).run(module.operation)
        text = str(module.operation.get_asm(enable_debug_info=False))
        code = stablehlo.serialize_portable_artifact_str(text, VERSION)
    return dataclasses.replace(program, mlir_module_serialized=code)


def as_tensorflow(program: export.Exported) -> Callable[..., Any]:
    """Returns a program as a function of tensors, for `tf.function` and SavedModels.

    What `jax2tf.convert` does with a function, for a program whose version is chosen.
    """
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python import xla

    def shape(aval: Any) -> list[int | None]:
        return [size if isinstance(size, int) else None for size in aval.shape]

    call = functools.partial(
        xla.call_module,
        version=program.calling_convention_version,
        module=program.mlir_module_serialized,
        Tout=[tf.as_dtype(aval.dtype) for aval in program.out_avals],
        Sout=[shape(aval) for aval in program.out_avals],
        platforms=[platform.upper() for platform in program.platforms],
        disabled_checks=[str(check) for check in program.disabled_safety_checks],
    )

    def function(*arguments: Any) -> Any:
        tensors = [tf.convert_to_tensor(leaf) for leaf in jax.tree.leaves(arguments)]
        kept = [tensors[index] for index in program.module_kept_var_idx]
        return jax.tree.unflatten(program.out_tree, call(kept))

    return function


def described() -> Programs:
    """Returns how programs are written here."""
    convention = jax.config.values["jax_export_calling_convention_version"]
    return Programs(jax=jax.__version__, stablehlo=VERSION, calling_convention=convention)
