"""What gin can bind of a stage, read from the sources: help imports no heavy library."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dsirm_jax.run.runner import JOB_ARGUMENTS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """An attribute of a dataclass that gin can bind.

    Attributes:
      name: of the attribute.
      annotation: its type, as the source has it.
      default: its default, as the source has it; None where it has to be bound.
    """

    name: str
    annotation: str
    default: str | None


def help_text(function: Callable[..., Any]) -> str:
    """Returns what gin binds to a stage's function, and to the dataclasses that are bound there.

    Args:
      function: of a stage; its annotations name classes that the module imports, if only for type
        checkers.
    """
    module = function.__module__
    stem = module.rpartition(".")[2]
    parameters = [
        Field(
            name=parameter.name,
            annotation=str(parameter.annotation),
            default=None if parameter.default is parameter.empty else repr(parameter.default),
        )
        for parameter in list(inspect.signature(function).parameters.values())[1:]
        if parameter.name not in JOB_ARGUMENTS
    ]
    if not parameters:
        return ""
    lines = ["gin bindings:", *_rows(f"{stem}.{function.__name__}", parameters)]
    origins = _origins(_file(module))
    package = module.partition(".")[0]
    listed = {}
    for home, name in _annotated(parameters, origins, package=package):
        for kind_home, selector, fields in _classes(home, name):
            listed[selector] = fields
            # A dataclass may itself have a field that comes in kinds.
            for inner in _annotated(fields, _origins(_file(kind_home)), package=package):
                listed |= {inner_name: found for _, inner_name, found in _classes(*inner)}
    for selector, fields in listed.items():
        lines += ["", *_rows(selector, fields)]
    return "\n".join(lines)


def class_rows(dataclass: type) -> list[str]:
    """Returns the rows of one dataclass."""
    stem = dataclass.__module__.rpartition(".")[2]
    return [
        row
        for _, _, fields in _classes(dataclass.__module__, dataclass.__name__)
        for row in _rows(f"{stem}.{dataclass.__name__}", fields)
    ]


def _rows(selector: str, fields: list[Field]) -> list[str]:
    width = max((len(field.name) for field in fields), default=0)
    return [
        f"  {selector}.{field.name:<{width}}  {field.annotation}"
        + ("" if field.default is None else f" = {field.default}")
        for field in fields
    ] or [f"  {selector}"]


def _annotated(
    fields: list[Field], origins: dict[str, tuple[str, str]], *, package: str
) -> Iterator[tuple[str, str]]:
    """Yields module and name of every class of a package that annotates a field."""
    for name in dict.fromkeys(re.findall(r"\w+", " ".join(field.annotation for field in fields))):
        home, original = origins.get(name, ("", name))
        # To look for another package's source could import what is heavy.
        if home.partition(".")[0] == package:
            yield home, original


def _file(module: str) -> Path:
    source = importlib.util.find_spec(module)
    if source is None or source.origin is None:
        raise ModuleNotFoundError(f"no source of {module}")
    return Path(source.origin)


def _origins(file: Path) -> dict[str, tuple[str, str]]:
    """Returns module and name of what a file imports, by the name that it goes by there."""
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def _classes(module: str, name: str) -> Iterator[tuple[str, str, list[Field]]]:
    """Yields module, selector and fields of a dataclass, or of all of the kinds of a protocol."""
    file = _file(module)
    folder, _, stem = module.rpartition(".")
    classes = _public_classes(file)
    if name not in classes:
        return
    if not _is_protocol(classes[name]):
        if _is_dataclass(classes[name]):
            yield module, f"{stem}.{name}", _fields(classes[name], module)
        return
    for sibling in sorted(file.parent.glob("*.py")):
        for kind, node in _public_classes(sibling).items():
            if _is_dataclass(node):
                home = f"{folder}.{sibling.stem}"
                yield home, f"{sibling.stem}.{kind}", _fields(node, home)


def _public_classes(file: Path) -> dict[str, ast.ClassDef]:
    tree = ast.parse(file.read_text("utf-8"))
    return {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }


def _is_protocol(node: ast.ClassDef) -> bool:
    return any("Protocol" in ast.unparse(base) for base in node.bases)


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _fields(node: ast.ClassDef, module: str) -> list[Field]:
    return [
        Field(
            name=part.target.id,
            annotation=ast.unparse(part.annotation),
            default=None if part.value is None else _value(part.value, module),
        )
        for part in node.body
        if isinstance(part, ast.AnnAssign)
        and isinstance(part.target, ast.Name)
        and not ast.unparse(part.annotation).startswith("ClassVar")
    ]


def _value(node: ast.expr, module: str) -> str:
    """Returns a default as the source has it, and the value of a constant in place of its name."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "dataclasses.field":
        node = next((each.value for each in node.keywords if each.arg == "default"), node)
    if not isinstance(node, ast.Name):
        return ast.unparse(node)
    file = _file(module)
    for statement in ast.parse(file.read_text("utf-8")).body:
        if not isinstance(statement, ast.Assign):
            continue
        for target in statement.targets:
            names, values = [target], [statement.value]
            if isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                names, values = target.elts, statement.value.elts
            for name, value in zip(names, values):
                if ast.unparse(name) == node.id:
                    return _value(value, module)
    home, original = _origins(file).get(node.id, ("", ""))
    if home.partition(".")[0] != module.partition(".")[0]:
        return node.id
    return _value(ast.Name(original), home)
