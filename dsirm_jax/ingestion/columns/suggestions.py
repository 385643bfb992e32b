"""What the columns of other people's tables are called, and which of ours they may be.

A name is suggested, never taken: `id` may be the number of a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from dsirm_jax.data.findings import Finding
from dsirm_jax.ingestion.columns.variants import GROUP

_ITEM_ID = (
    *("itemid", "productid", "productuid", "docid", "documentid", "docno", "sku", "asin"),
    *("handle", "variantsku", "productsku", "itemnumber", "articlenumber", "articleid", "corpusid"),
    *("uniqid", "uid", "gtin", "ean", "mpn", "pid", "product", "item", "doc", "id"),
)
COMMON_NAMES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "items": {
        "item_id": _ITEM_ID,
        "title": (
            *("title", "producttitle", "productname", "itemname", "itemtitle", "posttitle"),
            *("displayname", "name"),
        ),
        "description": (
            *("productdescription", "bodyhtml", "longdescription", "shortdescription", "body"),
            *("descriptions", "content", "details", "text", "productbulletpoint", "bulletpoints"),
        ),
        "brand": (
            *("productbrand", "brandname", "vendor", "manufacturer", "maker", "supplier"),
            *("marque", "marke"),
        ),
        "colour": ("color", "productcolor", "productcolour", "colorname", "colourname", "farbe"),
        "category": (
            *("categories", "productcategory", "categorypath", "categoryname", "producttype"),
            *("categoryhierarchy", "googleproductcategory", "breadcrumbs", "breadcrumb"),
            *("categorytree", "productclass", "taxonomy", "department", "type", "path"),
        ),
    },
    "judgements": {
        "query": (
            *("querytext", "searchterm", "searchquery", "searchphrase", "userquery"),
            *("querystring", "queries", "keywords", "keyword", "search", "term", "q"),
        ),
        "item_id": _ITEM_ID,
        "label": (
            *("relevance", "rating", "grade", "judgment", "judgement", "relevancelabel"),
            *("relevancegrade", "relevancescore", "relevancejudgment", "escilabel", "labels"),
            *("gain", "score"),
        ),
        "impressions": ("views", "impression", "impressioncount", "numimpressions", "shown"),
        "clicks": ("click", "clickcount", "numclicks"),
        "purchases": ("purchase", "purchasecount", "orders", "ordercount", "conversions", "bought"),
        "weight": ("weights", "sampleweight"),
        "split": ("partition", "subset"),
        "query_frequency": ("frequency", "queryfrequency", "queryfreq", "searchvolume", "searches"),
    },
}
"""Our column to what others call it, as `_plain` writes names, the likeliest first."""

MACROS = {"items": "ITEM_COLUMNS", "judgements": "JUDGEMENT_COLUMNS"}
"""What maps the columns of a table in gin/runs/tables.gin."""

_OTHER = re.compile(r"[\W_]+")
NAMED = 20
"""Columns of a table that a message names."""


def suggest(
    names: Sequence[str], *, table: str, wanted: Iterable[str], used: Iterable[str]
) -> dict[str, str]:
    """Returns our column to the user's that may be it.

    Args:
      names: columns of the user's table.
      table: items or judgements.
      wanted: our columns for which one is looked for.
      used: columns of the user's that are read already.
    """
    free: dict[str, list[str]] = {}
    for name in names:
        if name not in set(used):
            free.setdefault(_plain(name), []).append(name)
    found: dict[str, str] = {}
    for ours in wanted:
        for common in (_plain(ours), *COMMON_NAMES[table].get(ours, ())):
            # Two columns that differ in case alone are no suggestion.
            if len(free.get(common, ())) == 1:
                (found[ours],) = free.pop(common)
                break
    return found


def binding(table: str, columns: Mapping[str, str]) -> str:
    """Returns the flag that maps columns, to be pasted.

    Args:
      table: items or judgements.
      columns: our column to the user's.
    """
    # Within the quotes of a shell.
    text = re.sub(r'(["$`\\])', r"\\\1", repr(dict(columns)))
    return f'--gin.{MACROS[table]}="{text}"'


def column_findings(
    names: Sequence[str], *, table: str, columns: Mapping[str, str]
) -> list[Finding]:
    """Returns what is to be said of the columns of a table: those read, those left, suggestions.

    Args:
      names: columns of the user's table.
      table: items or judgements.
      columns: our column to the user's, of all that are looked for.
    """
    read = {ours: users for ours, users in columns.items() if users in names}
    unread = [name for name in names if name not in read.values()]
    labels = {GROUP: "Tables.variant_group"}
    shown = (
        users if users == ours else f"{users} as {labels.get(ours, ours)}"
        for ours, users in read.items()
    )
    text = f"columns read: {', '.join(shown)}; not read: {_listed(unread) or 'none'}"
    findings = [Finding(table=table, text=text, is_fault=False)]
    wanted = [name for name in COMMON_NAMES[table] if name not in read]
    if more := suggest(names, table=table, wanted=wanted, used=read.values()):
        mapped = {ours: users for ours, users in read.items() if users != ours and ours != GROUP}
        these = ", ".join(f"{users!r} may be our {ours}" for ours, users in more.items())
        findings.append(
            Finding(
                table=table,
                text=f"{len(more)} of {len(unread)} columns that are not read have common names: "
                f"{these}; where that is so: {binding(table, mapped | more)}",
            )
        )
    return findings


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f", … ({len(names)} in all)" if len(names) > NAMED else "")


def _plain(name: str) -> str:
    """Returns a name without case, space and punctuation."""
    return _OTHER.sub("", name.casefold())
