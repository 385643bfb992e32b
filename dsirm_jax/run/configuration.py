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
from dsirm_jax.io.records import LATER
from dsirm_jax.io.secrets import check_texts, masked
from dsirm_jax.run import fence, origin, translation

log = logging.getLogger(__name__)

_PACKAGE = Path(dsirm_jax.__file__).parent
# A checkout has `gin/` beside the package, a wheel inside it; `gin/runs/demo.gin` is found in both.
SEARCH_PATHS = (str(_PACKAGE.parent), str(_PACKAGE))
MODEL_DIR = "MODEL_DIR"
"""The macro that gin files bind `Job.model_dir` to."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _File:
    """A gin file.

    Attributes:
      path: as the user named it, or below the folder that it was found in.
      text: its contents, in the names of today.
      is_old: whether it has names of version 0.2.
      is_of_run: whether it is that of a run or bundle.
    """

    path: Path
    text: str
    is_old: bool
    is_of_run: bool


def parse(
    *,
    files: Sequence[str],
    bindings: Sequence[str],
    search_paths: Sequence[str] = (),
    allowed: Sequence[str] = (),
) -> None:
    """Reads gin files in order, then bindings, into gin's global configuration.

    The `config.gin` of a run or bundle is held to the `fence`, before anything is read into effect;
    that of a run also says that MODEL_DIR is the folder it lies in, whatever its text says.

    Args:
      files: paths, looked up as given, then below `search_paths`, then among the files that come
        with this package.
      bindings: `NAME = VALUE` texts that override the files, gin syntax.
      search_paths: further folders to look in.
      allowed: modules that a fenced file may name beside this package.

    Raises:
      InputError: a file is missing, a line or binding is wrong, a fenced file names another
        module, a macro is never used, a REQUIRED value is not given, or a URL holds a secret.
    """
    gin.clear_config(clear_constants=True)
    for folder in (*search_paths, *SEARCH_PATHS):
        gin.add_config_file_search_path(folder)
    named = [_with_included(_find(file, search_paths), search_paths) for file in files]
    for file in (file for included in named for file in included if file.is_of_run):
        with _one_line_errors(f"gin file {file.path}"):
            label = f"{file.path} in the names of today" if file.is_old else str(file.path)
            fence.check(file.text, file=label, allowed=allowed)
    imports: list[str] = []
    for *included, file in named:
        with _one_line_errors(f"gin file {file.path}"), _quiet():
            if file.is_old or file.is_of_run:
                gin.parse_config(file.text)
            else:
                gin.parse_config_file(str(file.path))
            imports += [line for each in (*included, file) for line in _import_lines(each.text)]
            _bind_model_dir(file)
        if file.is_old:
            log.warning("gin file %s: names of version 0.2, read as those of today", file.path)
    if bindings:
        # With dynamic registration a binding sees only what its own text imports.
        with _one_line_errors("--gin flag"):
            gin.parse_config([*dict.fromkeys(imports), *bindings])
    _check_macros_are_used()
    with _one_line_errors("configuration"):
        gin.finalize()
        # All of it is written to MODEL_DIR/config.gin, whichever stage runs.
        for name, value in _values(gin.config_str()).items():
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


def imports(file: str) -> list[str]:
    """Returns the import statements of a gin file and of those that it includes, each once.

    Raises:
      InputError: there is no such file, or it is no gin.
    """
    included = _with_included(_find(file, ()), ())
    return list(dict.fromkeys(line for each in included for line in _import_lines(each.text)))


def text() -> str:
    """Returns the configuration in effect, which can be read again as a gin file."""
    return gin.config_str()


def in_effect() -> dict[str, str]:
    """Returns what the configuration in effect binds, as text by name."""
    return _bindings(text())


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
        return _bindings(_read(path).text)


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
        fields = {
            f.name: description(part)
            for f in dataclasses.fields(value)
            if (part := getattr(value, f.name)) != f.default or f.metadata != LATER
        }
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


def _with_included(path: Path, search_paths: Sequence[str]) -> list[_File]:
    """Returns the files that a file includes, then itself; none is read into effect."""
    with _one_line_errors(f"gin file {path}"):
        file = _read(path)
        names = [
            statement.filename
            for statement in _statements(file.text)
            if isinstance(statement, config_parser.IncludeStatement)
        ]
        # The fence refuses what the file of a run includes.
        paths = [] if file.is_of_run else [_find(name, search_paths) for name in names]
        return [*(each for path in paths for each in _with_included(path, search_paths)), file]


def _read(path: Path) -> _File:
    text = path.read_text("utf-8")
    is_old = translation.is_old(text)
    return _File(
        path=path,
        text=translation.translated(text) if is_old else text,
        is_old=is_old,
        is_of_run=origin.is_of_run(path),
    )


def _statements(text: str) -> Iterator[Any]:
    """Yields the statements of a gin text, whose names stay text: nothing is imported."""
    return iter(config_parser.ConfigParser(text, translation.GinText()))


def _values(text: str) -> dict[str, Any]:
    """Returns what a gin text binds, by name; what it refers to stays a reference."""
    values = {}
    for statement in _statements(text):
        if isinstance(statement, config_parser.BindingStatement):
            scope, selector, argument, value, _ = statement
            name = "/".join(filter(None, (scope, selector)))
            values[f"{name}.{argument}" if argument else name] = value
    return values


def _bindings(text: str) -> dict[str, str]:
    return {name: repr(value) for name, value in _values(text).items()}


def _import_lines(text: str) -> list[str]:
    """Returns the import statements of a gin text; a line of a quoted text is none."""
    return [
        statement.format()
        for statement in _statements(text)
        if isinstance(statement, config_parser.ImportStatement)
    ]


def _bind_model_dir(file: _File) -> None:
    """Binds MODEL_DIR to the folder of a run whose `config.gin` was read."""
    folder = origin.model_dir(file.path)
    if folder is None:
        return
    values = _bindings(file.text)
    said = values.get(MODEL_DIR)
    if said and said != repr(str(folder)):
        log.info("gin file %s: MODEL_DIR is %s, where it lies, not %s", file.path, folder, said)
    if said:
        gin.parse_config(f"{MODEL_DIR} = {str(folder)!r}")
    job = [value for name, value in values.items() if name.endswith("Job.model_dir")]
    if not said or any(value != f"%{MODEL_DIR}" for value in job):
        gin.parse_config(
            "from __gin__ import dynamic_registration\n"
            "from dsirm_jax.run import job\n"
            f"job.Job.model_dir = {str(folder)!r}"
        )


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
