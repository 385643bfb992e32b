"""One writer: who holds a folder, so that nobody else writes into it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from dsirm_jax.io import lock
from dsirm_jax.run.layout import Layout
from dsirm_jax.training import processes


@contextlib.contextmanager
def sole_writer(layout: Layout, *, name: str = "run") -> Iterator[None]:
    """Holds what a command writes, in every process of a job that has several.

    Whoever reads needs no lock. The system takes a lock back from a process that is killed; a job
    is over when its last process is.

    Args:
      layout: of the run.
      name: `run` for all stages of MODEL_DIR; or that of a stage which reads a finished run.

    Raises:
      InputError: another command has it; the message says which.
    """
    what = str(layout.model_dir if name == "run" else layout.stage(name))
    path = layout.locks / f"{name}.lock"
    with contextlib.ExitStack() as held:

        def hold(path: Path) -> None:
            held.enter_context(lock.held(path, what=what))

        def hold_as_first() -> None:
            hold(path)
            for other in layout.locks.glob(f"{name}-*.lock"):  # of a job that has lost its first
                with lock.held(other, what=what):
                    pass

        processes.first(hold_as_first)
        if not processes.is_first():
            hold(path.with_name(f"{name}-{processes.index()}.lock"))
        yield
