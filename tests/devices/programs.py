"""The text of programs, and the float32 products in it that are not in full float32."""

import re
from pathlib import Path

import jax

PRODUCT = re.compile(r"stablehlo\.(?:dot_general|dot|convolution)\b.*")


def float32_products(text):
    """Returns the lines of a program's text that multiply float32."""
    lines = (match[0] for match in PRODUCT.finditer(text))
    return [line for line in lines if "f32>" in line.rpartition(" : (")[2].partition(" -> ")[0]]


def inexact(text):
    """Returns those of them that a device may round the factors of."""
    return [line for line in float32_products(text) if line.count("HIGHEST") != 2]


def inexact_of_rows(text):
    """Returns them but for those of one row, to which a module is applied to draw parameters."""
    return [line for line in inexact(text) if "(tensor<1x" not in line]


def asked(text):
    """Returns by precision the shapes of the factors that are multiplied."""
    found = {}
    for line in float32_products(text):
        (precision,) = set(re.findall("DEFAULT|HIGHEST|HIGH", line))
        found.setdefault(precision, set()).add(
            tuple(re.findall(r"tensor<([\dx?]+)xf32>", line)[:2])
        )
    return found


def compiled_by(function, *, folder: Path):
    """Calls a function, and returns the text of all that JAX compiles for it meanwhile."""
    jax.clear_caches()  # what is compiled already is not compiled again
    jax.config.update("jax_dump_ir_to", str(folder))
    jax.config.update("jax_disable_most_optimizations", True)  # of XLA's, which come later
    try:
        function()
    finally:
        jax.config.update("jax_dump_ir_to", "")
        jax.config.update("jax_disable_most_optimizations", False)
    return "\n".join(path.read_text() for path in sorted(folder.glob("*.mlir")))
