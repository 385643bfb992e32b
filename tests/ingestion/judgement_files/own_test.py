"""Kinds of judgement files are bound in gin by their class, those of a user's own too."""

from __future__ import annotations

import importlib
import sys

import gin
import pytest

from dsirm_jax.ingestion.judgement_files.quepid import Quepid
from dsirm_jax.ingestion.judgement_files.ubi import Ubi
from dsirm_jax.run import configuration
from dsirm_jax.stages import prepare
from tests.ingestion.reading import raw_rows, values

MODULE = '''
import dataclasses
import functools
from typing import ClassVar

from dsirm_jax.ingestion.formats.file_starts import numbered_lines
from dsirm_jax.ingestion.formats.row_chunks import Row, chunks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrows:
    """A line is `query ARROW item`, which is relevant."""

    arrow: str
    title: ClassVar[str] = "arrows"

    def recognises(self, start):
        return False

    def read(self, files, *, queries):
        return [functools.partial(read_chunks, file, self.arrow) for file in files], []


def read_chunks(file, arrow):
    rows = (
        Row(number, dict(zip(("query", "item_id", "label"), [*line.split(arrow), "1"])))
        for number, line in numbered_lines(file)
    )
    return chunks(rows, file=file, columns={"query": "query", "item_id": "item", "label": "label"})
'''
GIN = """
from __gin__ import dynamic_registration
import arrows
from dsirm_jax.ingestion.readers import tables
include 'gin/runs/tables.gin'
JUDGEMENTS_KIND = @arrows.Arrows()
arrows.Arrows.arrow = '->'
"""


@pytest.fixture(autouse=True)
def clean():
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.fixture
def bindings(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,title\nA1,shoe\n")
    (tmp_path / "judged.csv").write_text("red shoe->A1\nblue shoe -> A2\n")
    return [
        f"ITEMS = '{tmp_path / 'items.csv'}'",
        f"JUDGEMENTS = '{tmp_path / 'judged.csv'}'",
        "MODEL_DIR = 'out/x'",
    ]


def test_a_kind_of_another_module_reads(tmp_path, bindings, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "arrows.py").write_text(MODULE)
    (tmp_path / "own.gin").write_text(GIN)
    importlib.invalidate_caches()
    configuration.parse(files=[str(tmp_path / "own.gin")], bindings=bindings)
    source = configuration.bound(prepare.run)["source"]
    assert configuration.description(source)["judgements_kind"] == {"": "Arrows", "arrow": "->"}
    rows, _ = raw_rows(source.read().judgements)
    assert values(rows, "query", "item_id", "label") == [
        ("red shoe", "A1", "1"),
        ("blue shoe", "A2", "1"),
    ]
    sys.modules.pop("arrows")


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ([], None),
        (["JUDGEMENTS_KIND = @quepid.Quepid()"], Quepid()),
        (
            ["JUDGEMENTS_KIND = @ubi.Ubi()", "ubi.Ubi.clicks = ('click', 'add_to_cart')"],
            Ubi(clicks=("click", "add_to_cart")),
        ),
    ],
    ids=["none", "Quepid", "UBI"],
)
def test_flags_bind_the_kind(bindings, flags, kind):
    configuration.parse(files=["gin/runs/tables.gin"], bindings=[*bindings, *flags])
    assert configuration.bound(prepare.run)["source"].judgements_kind == kind
