"""Names of classes in files: what comes in kinds is told apart there without pickle.

A kind is a frozen dataclass, one file each in a folder of this package, its home; a user's own may
live in any module.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

from dsirm_jax.io.errors import InputError


def class_name(value: object, *, home: str) -> str:
    """Returns what a file calls the class of a value.

    Args:
      value: of any kind.
      home: package that has the kinds of this project, such as `dsirm_jax.relevance.heads`.

    Returns:
      The bare name of a class from `home`; of any other `MODULE.NAME`.
    """
    kind = type(value)
    if kind.__module__.startswith(f"{home}."):
        return kind.__name__
    return f"{kind.__module__}.{kind.__qualname__}"


def class_named(name: str, *, home: str) -> type:
    """Returns the class that `class_name` named.

    A file is not trusted: its name makes no module outside `home` be imported.

    Args:
      name: as `class_name` returns it.
      home: likewise.

    Raises:
      InputError: there is no such class, it is no frozen dataclass, or nothing has imported its
        module yet.
    """
    module, _, bare = name.rpartition(".")
    if module:
        if module not in sys.modules:
            raise InputError(
                f"{name} is needed, but nothing has imported {module}: import it in a gin file "
                f"(`import {module}`) or before the call"
            )
        candidates = [sys.modules[module]]
    else:
        folder = importlib.import_module(home)
        candidates = [
            importlib.import_module(f"{home}.{module_info.name}")
            for module_info in pkgutil.iter_modules(folder.__path__)
        ]
    for candidate in candidates:
        kind = vars(candidate).get(bare)
        if isinstance(kind, type) and kind.__module__ == candidate.__name__:
            settings = getattr(kind, "__dataclass_params__", None)
            if not (settings and settings.frozen):
                raise InputError(f"{name} is no frozen dataclass, so that no file may name it")
            return kind
    raise InputError(f"there is no {name} in {module or home}")
