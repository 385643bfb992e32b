"""Reads gin files and `--gin.NAME=VALUE` bindings and hands out what they bind."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import inspect
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gin
from gin import config_parser

import dsirm_jax
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.secrets import check_texts, masked
from dsirm_jax.run import translation

log = logging.getLogger(__name__)

_PACKAGE = Path(dsirm_jax.__file__).parent
# A checkout has `gin/` beside the package, a wheel inside it; `gin/runs/demo.gin` is found in both.
SEARCH_PATHS = (str(_PACKAGE.parent), str(_PACKAGE))


def parse(
    *, files: Sequence[str], bindings: Sequence[str], search_paths: Sequence[str] = ()
) -> None:
    """Reads gin files in order, then bindings, into gin's global configuration.

    Args:
      files: paths, looked up as given, then below `search_paths`, then among the files that come
        with this package.
      bindings: `NAME = VALUE` texts that override the files, gin syntax.
      search_paths: further folders to look in.

    Raises:
      InputError: a file is missing, a line or binding is wrong, a macro is never used, a
        REQUIRED value is not given, or a URL holds a secret.
    """
    gin.clear_config(clear_constants=True)
    for folder in (*search_paths, *SEARCH_PATHS):
        gin.add_config_file_search_path(folder)
    imports: list[str] = []
    for file in files:
        path = _find(file, search_paths)
        with _one_line_errors(f"gin file {file}"), _quiet():
            text = path.read_text("utf-8")
            is_old = translation.is_old(text)
            if is_old:
                text = translation.translated(text)
                gin.parse_config(text)
                imports += _import_lines(text)
            else:
                imports += _imports(gin.parse_config_file(str(path)), search_paths)
        if is_old:
            log.warning("gin file %s: names of version 0.2, read as those of today", file)
    if bindings:
        # With dynamic registration a binding sees only what its own text imports.
        with _one_line_errors("--gin flag"):
            gin.parse_config([*dict.fromkeys(imports), *bindings])
    _check_macros_are_used()
    with _one_line_errors("configuration"):
        gin.finalize()
        # All of it is written to MODEL_DIR/config.gin, whichever stage runs.
        for name, value in _statements(gin.config_str()):
            check_texts(value, binding=f"gin binding {name}")


def bound(function: Callable[..., Any], *, scope: str | None = None) -> dict[str, Any]:
    """Returns the values that the configuration binds to a function's arguments.

    Args:
      function: any function or class; nothing has to be bound to it.
      scope: gin scope whose bindings win over the unscoped ones.

    Returns:
      Argument values by name, references resolved.

    Raises:
      InputError: a referenced object lacks a value or refuses one, or an argument that has no
        default is not bound.
    """
    name = f"{function.__module__.removeprefix('dsirm_jax.')}.{function.__name__}"
    with _one_line_errors(name), gin.config_scope(scope):
        try:
            gin.get_configurable(function)
        except (ValueError, KeyError):
            return {}
        return gin.get_bindings(function)


def text() -> str:
    """Returns the configuration in effect, which can be read again as a gin file."""
    return gin.config_str()


def bindings(path: Path) -> dict[str, str]:
    """Returns what a gin file binds, as text by name, without reading it into effect.

    Args:
      path: a file that `text` made: it includes no other.

    Raises:
      InputError: there is no such file, or it is no gin.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; it is written by `dsirm run`")
    with _one_line_errors(str(path)):
        text = path.read_text("utf-8")
        if translation.is_old(text):
            text = translation.translated(text)
        return {name: repr(value) for name, value in _statements(text)}


def _statements(text: str) -> Iterator[tuple[str, Any]]:
    """Yields names and values of what a gin text binds, which includes no other."""
    for statement in config_parser.ConfigParser(text, translation.GinText()):
        if isinstance(statement, config_parser.BindingStatement):
            scope, selector, argument, value, _ = statement
            name = "/".join(filter(None, (scope, selector)))
            yield f"{name}.{argument}" if argument else name, value


def call_with_bound(function: Callable[..., Any]) -> Any:
    """Returns `function()` with the configuration's values; InputError names what is missing."""
    values = bound(function)
    check_complete(function, values)
    return function(**values)


def check_complete(function: Callable[..., Any], values: dict[str, Any]) -> None:
    """Raises InputError when an argument without a default has no value."""
    parameters = inspect.signature(function).parameters.values()
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in values]
    if missing:
        name = f"{function.__module__.rsplit('.', 1)[-1]}.{function.__name__}"
        raise InputError(
            f"gin binding {name}.{missing[0]} is missing; bind it in a gin file or with "
            f"--gin.{name}.{missing[0]}=VALUE"
        )


def description(value: Any) -> Any:
    """Returns a JSON value that changes exactly when a bound value does."""
    if dataclasses.is_dataclass(value):
        fields = {f.name: description(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"": type(value).__name__, **fields}
    if isinstance(value, dict):
        return {str(key): description(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [description(part) for part in value]
    if isinstance(value, functools.partial):
        return {"": description(value.func), "args": description([value.args, value.keywords])}
    if inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"  # its repr may have its place in memory
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def _find(file: str, search_paths: Sequence[str]) -> Path:
    for folder in ("", *search_paths, *SEARCH_PATHS):
        path = Path(folder) / file
        if path.is_file():
            return path
    raise InputError(
        f"gin file {file} does not exist, neither here nor below "
        f"{', '.join((*search_paths, *SEARCH_PATHS))}; check --gin_file"
    )


def _imports(parsed: Any, search_paths: Sequence[str]) -> Iterator[str]:
    """Yields the import statements of a parsed file and of the files that it includes."""
    for included in parsed.includes:
        yield from _imports(included, search_paths)
    yield from _import_lines(_find(parsed.filename, search_paths).read_text("utf-8"))


def _import_lines(text: str) -> Iterator[str]:
    yield from (line for line in text.splitlines() if re.match(r"(from|import)\s", line))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences gin, which logs an error for every folder that an included file is not in."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _check_macros_are_used() -> None:
    config = gin.config_str()
    used = set(re.findall(r"%([A-Za-z_][\w.]*)", config))
    defined = re.findall(r"^([A-Za-z_]\w*) *=", config, flags=re.MULTILINE)
    for name in defined:
        if name not in used:
            near = difflib.get_close_matches(name, sorted(used), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"gin macro {name} is not used by any of the gin files{hint}")


@contextlib.contextmanager
def _one_line_errors(where: str) -> Iterator[None]:
    """Turns what gin raises into one line."""
    try:
        yield
    except InputError as error:
        # gin adds lines that say which call it was in.
        raise InputError(str(error).partition("\n  In call to configurable")[0]) from error
    except OSError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{where}: {reason}") from error
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        required = re.search(r"(\S+?)(?:/\S+)? set to `%gin\.REQUIRED`", str(error))
        if required:
            name = required[1]
            raise InputError(
                f"gin value {name} is REQUIRED and not given; add --gin.{name}=VALUE "
                f"(a text needs quotes: --gin.{name}=\"'text'\")"
            ) from error
        reason = masked(lines[0]) if lines else type(error).__name__
        raise InputError(f"{where}: {reason}") from error
