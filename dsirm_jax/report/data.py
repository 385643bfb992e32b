"""What `prepare` read and made, as panels of bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsirm_jax.report.charts import bars

NEAR_TWINS = "Queries with a near-twin in another split"
OPTIONAL = ("description", "brand", "colour", "category")


def data_panels(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the panels that describe the items, queries and judgements of a run.

    Args:
      summary: contents of `prepare/summary.json`.

    Returns:
      Title and bars of each panel, in the order of the page.
    """
    items, judgements, queries = (summary[name] for name in ("items", "judgements", "queries"))
    filled = {name: items[f"with_{name}"] for name in OPTIONAL}
    panels = [
        _panel("Labels of judged items", judgements["labels"]),
        _panel("Queries by segment", queries["segments"]),
        _panel("Items that have a …", filled, total=items["kept"]),
        _panel("Words of a title", items["title_words"]),
        _panel("Words of a query", queries["query_words"]),
        _panel("Judged items of a query", queries["judgements_per_query"]),
    ]
    if "near_twins" in queries:  # not of a run of version 0.2
        total = sum(queries["segments"].values())
        panels.append(_panel(NEAR_TWINS, queries["near_twins"], total=total))
    return panels


def category_panel(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the panel of the largest first-level categories, None where there are none.

    Args:
      summary: contents of `prepare/summary.json`.
    """
    items = summary["items"]
    named = items["largest_categories"]
    if not named:
        return None
    panel = _panel("Items by first-level category", named, total=items["with_category"])
    others = items["categories"] - len(named)
    rest = items["with_category"] - sum(named.values())
    return panel | {"others": others, "rest": rest}


def _panel(title: str, counts: Mapping[str, int], *, total: int | None = None) -> dict[str, Any]:
    return {
        "title": title,
        "bars": bars(counts, total=sum(counts.values()) if total is None else total),
    }
