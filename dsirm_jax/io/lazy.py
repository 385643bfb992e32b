"""Public names of packages, imported when they are first looked at."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Mapping
from typing import Any


def public(
    package: str, names: Mapping[str, str] | None = None, *, kinds: str = ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns `__getattr__` and `__dir__` of a package, by which its modules are attributes.

    Args:
      package: its name, `__name__` in its own `__init__.py`.
      names: classes and functions that are attributes too, each with its module: of the package,
        or a whole name.
      kinds: a folder of the package whose classes are attributes too.

    Returns:
      Both functions, see PEP 562.
    """
    names = names or {}

    def modules() -> set[str]:
        return {module.name for module in pkgutil.iter_modules(sys.modules[package].__path__)}

    def get(name: str) -> Any:
        if name in names:
            home = names[name]
            is_whole = home.startswith(f"{package.partition('.')[0]}.")
            return getattr(importlib.import_module(home if is_whole else f"{package}.{home}"), name)
        if not name.startswith("_") and name in modules():
            return importlib.import_module(f"{package}.{name}")
        if kinds and name[:1].isupper():
            from dsirm_jax.io.errors import InputError
            from dsirm_jax.io.kinds import class_named

            try:
                return class_named(name, home=f"{package}.{kinds}")
            except InputError:
                pass
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *names, *modules()})

    return get, listed
