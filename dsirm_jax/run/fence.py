"""What the gin file of a run or bundle may name: this package, and what the user allows.

gin is a program. With dynamic registration it imports what a file names, follows attributes, be it
through this package to the modules that this imports (`files.os.system`), and calls what it comes
to. Here the file is read as text first, and each name followed as gin would; gin then reads the
same text.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NoReturn

from gin import config_parser

from dsirm_jax.io.errors import InputError
from dsirm_jax.run.translation import GinText, Name

PACKAGE = "dsirm_jax"
CALLED = f"{PACKAGE}.relevance.groups"
"""Module whose functions a reference may call; of the rest of the package only dataclasses, for a
function may write files."""


def check(text: str, *, file: str, allowed: Sequence[str] = ()) -> None:
    """Imports what a gin text names, where all of that may be named.

    Args:
      text: of the file.
      file: what messages call it.
      allowed: modules that it may name beside this package, with those below them.

    Raises:
      InputError: it names, calls or includes anything else. The message names the line; no module
        but those that may be named has been imported, and nothing called.
    """
    _Fence(text, file, (PACKAGE, *allowed)).check()


class _Text(GinText):
    """Keeps the names of references."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Name:
        self.names.append(scoped_configurable_name.rpartition("/")[2])
        return super().configurable_reference(scoped_configurable_name, evaluate)


class _Fence:
    """One text's."""

    def __init__(self, text: str, file: str, modules: tuple[str, ...]):
        self._text = text
        self._file = file
        self._modules = modules
        self._symbols: dict[str, ModuleType] | None = None  # None: names would be found elsewhere

    def check(self) -> None:
        statements = list(self._statements())
        for statement, _ in statements:
            if isinstance(statement, config_parser.IncludeStatement):
                self._refuse(
                    statement,
                    "the gin file of a run includes no other; if you trust that one, name it with "
                    "a --gin_file of its own",
                )
            elif isinstance(statement, config_parser.ImportStatement) and not _is_feature(
                statement
            ):
                self._check_import(statement)
        for statement, references in statements:
            if isinstance(statement, config_parser.ImportStatement):
                self._bind(statement)
                continue
            for name in references:
                if not self._may_be_called(self._resolved(name, statement)):
                    self._refuse(
                        self._line_of(name, statement),
                        f"{name} is neither a dataclass nor a function of {CALLED}: the gin file "
                        "of a run calls nothing else of this package",
                    )
            is_macro = isinstance(statement, config_parser.BindingStatement) and (
                not statement.arg_name
            )
            if not is_macro:
                self._resolved(statement.selector, statement)

    def _statements(self) -> Iterator[tuple[Any, list[str]]]:
        """Yields statements, each with the names that its value refers to."""
        delegate = _Text()
        for statement in config_parser.ConfigParser(self._text, delegate):
            names, delegate.names = delegate.names, []
            yield statement, names

    def _check_import(self, statement: config_parser.ImportStatement) -> None:
        if not self._is_within(statement.module):
            self._refuse_module(statement, statement.module)
        # dsirm_jax.__main__ would run a command.
        if _is_own(statement.module) and "._" in statement.module:
            self._refuse(statement, f"{statement.module} is private")

    def _bind(self, statement: config_parser.ImportStatement) -> None:
        """Keeps the module that an import binds to a name, as gin does."""
        if _is_feature(statement):
            self._symbols = {}
        else:
            module = importlib.import_module(statement.module)
            if not (statement.is_from or statement.alias):
                module = sys.modules[statement.bound_name()]
            if self._symbols is not None:
                self._symbols[statement.bound_name()] = module

    def _resolved(self, selector: str, statement: Any) -> Any:
        """Returns the class or function that gin would take a name for."""
        first, *rest = selector.split(".")
        line = self._line_of(selector, statement)
        if first not in (self._symbols or {}):
            self._refuse(
                line,
                f"{first} is not imported above, below `from __gin__ import dynamic_registration`",
            )
        target: Any = (self._symbols or {})[first]
        for place, name in enumerate(rest, 1):
            if name.startswith("_") or not hasattr(target, name):
                self._refuse(line, f"{'.'.join([first, *rest[:place]])} is not there, or private")
            target = getattr(target, name)
            home = target.__name__ if inspect.ismodule(target) else _home(target)
            if not self._is_within(home):
                self._refuse_module(line, home)
            if place < len(rest) and not inspect.ismodule(target):
                self._refuse(line, f"{'.'.join([first, *rest[:place]])} is no module")
        if not (inspect.isclass(target) or inspect.isfunction(target)):
            self._refuse(line, f"{selector} is neither a class nor a function")
        return target

    def _may_be_called(self, target: Any) -> bool:
        home = _home(target)
        if not _is_own(home):
            return True
        return dataclasses.is_dataclass(target) if inspect.isclass(target) else home == CALLED

    def _is_within(self, module: str) -> bool:
        return any(module == name or module.startswith(f"{name}.") for name in self._modules)

    def _line_of(self, name: str, statement: Any) -> int | Any:
        """Returns the number of the line that refers to a name, at or after a statement's."""
        first = statement.location.line_num
        lines = self._text.split("\n")[first - 1 :]
        return first + next((place for place, line in enumerate(lines) if name in line), 0)

    def _refuse_module(self, line: Any, module: str) -> NoReturn:
        self._refuse(
            line,
            f"it runs code of {module or 'another module'}; if you trust it add --allow={module}",
        )

    def _refuse(self, line: Any, reason: str) -> NoReturn:
        number = line if isinstance(line, int) else line.location.line_num
        text = self._text.split("\n")[number - 1].strip()
        raise InputError(f"{self._file}:{number}: {text!r}: {reason}")


def _is_own(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


def _is_feature(statement: config_parser.ImportStatement) -> bool:
    """Whether it is no import, but asks gin for something."""
    return statement.is_from and statement.module.startswith("__gin__.")


def _home(target: Any) -> str:
    """Returns the module of a class or function; that of anything else is nowhere."""
    home = getattr(target, "__module__", None)
    return home if isinstance(home, str) else type(target).__module__
