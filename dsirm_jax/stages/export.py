"""Stage `export`: a finished run to the bundle that serves it."""

from __future__ import annotations

from typing import Any

from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import relevance


def run(layout: Layout, **bindings: Any) -> None:
    """a finished run -> a bundle, see `serving.export.export`."""
    from dsirm_jax.serving.export import export

    export(layout, **bindings)


def bundle_faults(layout: Layout) -> list[str]:
    """Returns what is wrong with the bundle of a run; see `runner.Stage.faults`."""
    from dsirm_jax.io.errors import InputError
    from dsirm_jax.serving.bundle.contents import open_bundle

    try:
        open_bundle(layout.bundle)
    except InputError as error:
        return [str(error)]
    return []


STAGE = Stage(
    name="export",
    function=run,
    needs=(relevance.STAGE,),
    alone=True,
    reads_run=True,
    faults=bundle_faults,
)
