from __future__ import annotations

import itertools

import pyarrow as pa

from dsirm_jax.data.schema import Chunk
from dsirm_jax.ingestion.validation.missing import MISSING
from dsirm_jax.ingestion.validation.oddities import Oddities, oddity_findings
from dsirm_jax.ingestion.validation.validate import checked_items


def items(rows, **settings):
    table = pa.Table.from_pylist([{"item_id": str(at), **row} for at, row in enumerate(rows)])
    oddities = Oddities()
    kept, _ = checked_items(
        Chunk(table=table, file="f"), extras=pa.schema([]), oddities=oddities, **settings
    )
    return kept.to_pylist(), oddities


def texts(oddities, rows):
    findings = oddity_findings(oddities, table="items", rows=rows, columns={"brand": "maker"})
    findings = list(findings)
    assert all(finding.is_fault for finding in findings)
    return [finding.text.partition(";")[0].partition(":")[0] for finding in findings]


def test_markers_are_missing_but_in_titles_and_ids():
    names = ("item_id", "title", "brand", "colour", "description", "category", "text")
    for marker in MISSING:
        texts = dict.fromkeys(names[:5], marker) | {"brand": f" {marker}"}
        row = texts | {"category": ["Home", marker]}
        (kept,), oddities = items([row])
        expected = [marker, marker, None, None, None, ["Home"], marker]
        assert [kept[name] for name in names] == expected
        assert len(oddities.counts) == 5
        (kept,), oddities = items([row], missing=())
        assert [kept[name] for name in ("brand", "category")] == [marker, ["Home", marker]]
        assert not oddities.counts


def test_a_brand_that_is_none_of_the_markers_stays():
    rows, oddities = items([{"title": "t", "brand": brand} for brand in ("Nanette", "none", "Nan")])
    assert [row["brand"] for row in rows] == ["Nanette", "none", "Nan"]
    assert not oddities.counts


def test_findings_have_counts_names_examples_and_an_order():
    rows = [
        {"title": "CafÃ© 2", "brand": "NULL"},
        {"title": "CafÃ© 1", "brand": "NULL"},
        {"title": "It’s â€™", "brand": "N/A"},
        {"title": "Caf\ufffd", "brand": "Arvo"},
        {"title": "NULL", "brand": "SÃO ÃNGELO"},
    ]
    _, oddities = items(rows)
    garbled, kept, *missing, replaced = texts(oddities, 5)
    assert garbled.startswith("title looks like UTF-8 that was read as Windows-1252 in 3 of 5 rows")
    assert "'CafÃ© 1'" in garbled
    assert kept == "title is 'NULL' in 1 of 5 rows and is kept as text"
    assert missing == ["maker is 'N/A' in 1 of 5 rows", "maker is 'NULL' in 2 of 5 rows"]
    assert replaced.startswith("title has the replacement character '\ufffd' in 1 of 5 rows")


def test_findings_do_not_depend_on_the_order_of_rows():
    rows = [{"title": title} for title in ("CafÃ© 2", "CafÃ© 1", "NULL")]
    seen = []
    for order in itertools.permutations(rows):
        total = Oddities()
        for row in order:
            total.update(items([row])[1])
        seen.append(texts(total, 3))
    assert all(found == seen[0] for found in seen)
