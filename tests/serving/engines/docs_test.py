"""docs/engines.md shows what the engines write."""

import re
from pathlib import Path

import pytest

from dsirm_jax.serving import engines
from dsirm_jax.serving.engines.engine import Document, Index, prefixes_of, terms_of

TEXT = Path("docs/engines.md").read_text("utf-8")
SHOWN = re.findall(r'^```\w+ title="(\w+) ([\w.]+)"\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)
INDEX = Index(name="items", sid_version="9f2c41d07ab35e86", dim=None)
ITEM = Document(
    item_id="P0000017",
    prefixes=prefixes_of([12, 87, 3]),
    fields={"title": "Acme red mug", "brand": "Acme", "category": "Home > Mugs"},
    vector=None,
)
TERMS = terms_of([[12, 87, 3], [12, 9, 41]], [0.62, 0.21])


@pytest.mark.parametrize(
    ("engine", "what", "shown"), SHOWN, ids=[f"{engine} {what}" for engine, what, _ in SHOWN]
)
def test_what_is_shown_is_what_is_written(engine, what, shown):
    named = engines.named(engine)
    if what == "document":
        written = named.document(ITEM, index=INDEX)
    elif what == "query":
        written = named.query("red mug", TERMS, index=INDEX)
    else:
        written = named.index_files(INDEX)[what]
    assert shown.strip() == written.strip()


def test_every_engine_has_its_part():
    assert {engine for engine, _, _ in SHOWN} == {*engines.names()}
    for name in engines.names():
        assert re.search(rf"^## .*{name[:4]}", TEXT, re.IGNORECASE | re.MULTILINE)
