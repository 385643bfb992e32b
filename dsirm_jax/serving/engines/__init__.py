"""A run's items and queries as the files that search engines load, a file an engine."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsirm_jax.serving.engines.engine import Engine


def names() -> tuple[str, ...]:
    """Returns the engines that there are: the modules of this folder that have an `ENGINE`."""
    folder = Path(__file__).parent
    modules = (module.name for module in pkgutil.iter_modules([str(folder)]))
    return tuple(
        name for name in modules if "\nENGINE = " in (folder / f"{name}.py").read_text("utf-8")
    )


def named(name: str) -> Engine:
    """Returns the engine of a module of this folder."""
    engine: Engine = importlib.import_module(f"{__name__}.{name}").ENGINE
    return engine
