import importlib
import sys
import textwrap

import pytest

from dsirm_jax.commands import bindings
from dsirm_jax.stages import STAGES


@pytest.fixture
def stage(tmp_path):
    """A stage of a module that is imported, whose settings' modules cannot be."""
    folder = tmp_path / "shoes"
    (folder / "kinds").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "kinds" / "__init__.py").touch()
    heavy = "import a_library_that_is_not_here\n"
    sources = {
        "polish.py": """
            from __future__ import annotations
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                from shoes.kinds.kind import Brush
                from shoes.settings import Wax

            def run(layout, *, seed: int, brush: Brush, wax: Wax | None = None, coats: int = 2):
                '''shoes -> shoes that shine.'''
        """,
        "settings.py": heavy
        + """
            from shoes.kinds.kind import GLOSS

            COLD, WARM = DEGREES = (10.0, 40.0)

            @dataclasses.dataclass(frozen=True)
            class Wax:
                '''Not bound: SOLVENT.'''
                SOLVENT = 'turpentine'
                colour: str
                warmth: float = dataclasses.field(default=WARM, repr=False)
                shine: str = GLOSS
        """,
        "kinds/kind.py": heavy
        + """
            GLOSS = 'high'

            class Brush(Protocol):
                width: int
        """,
        "kinds/soft.py": heavy
        + """
            from shoes.paint import Paint

            @dataclasses.dataclass
            class Soft:
                title: ClassVar[str] = 'soft'
                hair: tuple[str, ...] = ('goat', 'yak')
                paint: Paint | None = None

            class Bristle: ...
        """,
        "paint.py": heavy + "@dataclasses.dataclass\nclass Paint:\n    tint: str = 'red'\n",
        "kinds/hard.py": heavy + "@dataclasses.dataclass\nclass Hard: ...\n",
    }
    for name, source in sources.items():
        (folder / name).write_text(textwrap.dedent(source.replace(heavy, "")), "utf-8")
        if source.startswith(heavy):
            (folder / name).write_text(heavy + (folder / name).read_text("utf-8"), "utf-8")
    sys.path.insert(0, str(tmp_path))
    yield importlib.import_module("shoes.polish").run
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "shoes"]:
        del sys.modules[name]


def test_attributes_of_what_is_bound_stand_there_with_their_defaults(stage):
    assert bindings.help_text(stage).splitlines() == [
        "gin bindings:",
        "  polish.run.brush  Brush",
        "  polish.run.wax    Wax | None = None",
        "  polish.run.coats  int = 2",
        "",
        "  hard.Hard",
        "",
        "  soft.Soft.hair   tuple[str, ...] = ('goat', 'yak')",
        "  soft.Soft.paint  Paint | None = None",
        "",
        "  paint.Paint.tint  str = 'red'",
        "",
        "  settings.Wax.colour  str",
        "  settings.Wax.warmth  float = 40.0",
        "  settings.Wax.shine   str = 'high'",
    ]


@pytest.mark.parametrize("stage_of_the_job", STAGES, ids=lambda stage: stage.name)
def test_every_stage_has_help(stage_of_the_job):
    text = bindings.help_text(stage_of_the_job.function)
    assert "Layout" not in text and ".run.seed" not in text
