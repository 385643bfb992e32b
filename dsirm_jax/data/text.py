"""Cleaning of text, the same when tables are prepared and when a query is served."""

from __future__ import annotations

import html
import re
from html.entities import html5

TAGS = (
    "a abbr article b big blockquote body br center cite code dd del div dl dt em font footer h1 "
    "h2 h3 h4 h5 h6 head header hr html i iframe img input ins li ol p pre q s script section "
    "small span strike strong style sub sup table tbody td tfoot th thead tr tt u ul video"
).replace(" ", "|")
# Each alternative stops at the next "<", so that hostile text costs linear time.
_MARKUP = re.compile(
    r"<(script|style)\b[^<>]*>[^<]*</\1\s*>"
    r"|<!--(?:(?!<!--).)*?-->"
    rf"|</?(?:{TAGS})\b[^<>]*>",
    re.IGNORECASE | re.DOTALL,
)
_ENTITY = re.compile(r"&(?:amp;)*(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# Control characters that are no white space, soft hyphen, zero-width space, directional marks,
# byte-order mark and unpaired surrogates. The zero-width (non-)joiners stay: emoji, Persian and
# Indic scripts are spelt with them.
INVISIBLE = (
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060"
    "\u2066-\u2069\ufeff"
)
_INVISIBLE = re.compile(f"[{INVISIBLE}\ud800-\udfff]")
_SUSPECT = re.compile(rf"[&<]|{_INVISIBLE.pattern}")
# Shops escape text once or twice; deeper nesting is left alone rather than followed forever.
ROUNDS = 4


def clean(text: str) -> str:
    """Removes HTML tags, entities and invisible characters, and folds white space.

    What is no HTML stays: "AT&T", "size <10", "A&copper". Case, accents and compatibility forms
    are left to the vocabulary's own normaliser. Cleaning twice changes nothing.

    Args:
      text: any text.

    Returns:
      Text without leading, trailing, doubled or other white space than single spaces; perhaps "".

    Example:
      >>> clean("Tom&amp;Jerry&nbsp; <b>Mug</b>\\n350ml")
      'Tom&Jerry Mug 350ml'
    """
    if text.isascii() and text.isprintable() and not ("&" in text or "<" in text or "  " in text):
        return text.strip(" ")  # most text: all that follows would leave the rest
    for _ in range(ROUNDS):
        if not _SUSPECT.search(text):
            break
        before = text
        text = _INVISIBLE.sub("", text)
        text = _MARKUP.sub(" ", text)
        text = _ENTITY.sub(_character, text)
        if text == before:
            break
    return " ".join(text.split())


def _character(entity: re.Match[str]) -> str:
    name = entity[1]
    known = name.startswith("#") or f"{name};" in html5
    return html.unescape(f"&{name};") if known else entity[0]
