"""Stage `report`: a finished run to one page."""

from __future__ import annotations

from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import relevance


def run(layout: Layout, *, title: str) -> None:
    """everything above -> one self-contained page."""
    from dsirm_jax.report.build import write_report

    write_report(layout=layout, title=title)


STAGE = Stage(
    name="report",
    function=run,
    needs=(relevance.STAGE,),
    optional=("ablate",),
    alone=True,
)
