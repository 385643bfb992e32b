"""Texts within Markdown and within the YAML at its head, which nothing in them can break."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from markupsafe import Markup

from dsirm_jax.io.secrets import masked

LONGEST = 1000
# What makes code, emphasis, links, HTML, tables, strikethrough, entities, headings, mathematics and
# mentions; and what makes a link of an address that stands by itself.
_MARKS = re.compile(
    r"[\\`*\[\]<>|~&#$]|(?<![^\W_])_|_(?![^\W_])|@(?=[A-Za-z])|:(?=/)|(?<=www)\.", re.IGNORECASE
)


def plain(text: str) -> str:
    """Returns a text as one line without secrets and signs that cannot be seen, cut where long."""
    kept = "".join(" " if _is_unseen(sign) else sign for sign in masked(text))
    words = " ".join(kept.split())
    return words if len(words) <= LONGEST else f"{words[:LONGEST]}…"


def escaped(value: Any) -> Markup:
    """Returns a value as it stands in a line or cell of Markdown; what is Markdown stays so."""
    if isinstance(value, Markup):
        return value
    return Markup(_MARKS.sub(lambda match: f"\\{match[0]}", plain(str(value))))


def quoted(text: str) -> Markup:
    """Returns a text as a scalar of YAML, which JSON's texts are."""
    return Markup(json.dumps(plain(text), ensure_ascii=False))


def _is_unseen(sign: str) -> bool:
    category = unicodedata.category(sign)
    return category[0] == "C" or category in ("Zl", "Zp")
