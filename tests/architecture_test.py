"""docs/architecture.md is true: a room imports from the rooms below it, and its files exist."""

import ast
import re
from pathlib import Path

TEXT = Path("docs/architecture.md").read_text("utf-8")
PACKAGE = Path("dsirm_jax")


def rooms():
    """Returns the place of each room in the list."""
    lines = TEXT.split("## Rooms")[1].split("\n## ")[0].splitlines()
    cells = [line.split(" | ")[0] for line in lines if line.startswith("| [")]
    return {
        name: place
        for place, cell in enumerate(cells)
        for name in re.findall(r"dsirm_jax/(\w+)", cell)
    }


def imported(file):
    """Yields the modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
            yield from (f"{PACKAGE.name}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_the_list_has_every_room():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {*rooms()} == folders | {"cli"}


def test_a_room_imports_from_those_below_alone():
    places, edges = rooms(), 0
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for module in imported(file):
            package, _, rest = module.partition(".")
            other = rest.partition(".")[0]
            if room in places and package == PACKAGE.name and other in places and other != room:
                assert places[room] < places[other], f"{file} imports {module}"
                edges += 1
    assert edges > 100


def test_files_exist():
    named = re.findall(r"\]\(((?!http)[^)#]+)\)", TEXT)
    assert len(named) > 20
    assert [path for path in named if not (Path("docs") / path).exists()] == []
