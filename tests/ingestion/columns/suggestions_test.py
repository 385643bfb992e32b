from __future__ import annotations

import re

import gin
import pytest

from dsirm_jax.ingestion.columns import suggestions
from dsirm_jax.ingestion.columns.mapping import item_mapping, judgement_mapping, present_columns
from dsirm_jax.io.errors import InputError

SHOPIFY = ["Handle", "Title", "Body (HTML)", "Vendor", "Type", "Variant SKU"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(
            SHOPIFY,
            {
                "item_id": "Handle",
                "title": "Title",
                "description": "Body (HTML)",
                "brand": "Vendor",
                "category": "Type",
            },
            id="Shopify",
        ),
        pytest.param(["Item ID", "TITLE"], {"item_id": "Item ID", "title": "TITLE"}, id="case"),
        pytest.param(
            ["id", "product_uid", "product_title"],
            {"item_id": "product_uid", "title": "product_title"},
            id="id is a row number",
        ),
        pytest.param(
            ["asin", "name", "color"], dict(item_id="asin", title="name", colour="color"), id="US"
        ),
        pytest.param(["Title", "TITLE", "x"], {}, id="two that differ in case alone"),
    ],
)
def test_common_names_are_suggested(names, expected):
    wanted = list(suggestions.COMMON_NAMES["items"])
    assert suggestions.suggest(names, table="items", wanted=wanted, used=()) == expected


def test_a_column_that_is_read_is_suggested_for_nothing():
    found = suggestions.suggest(
        ["sku", "name"], table="items", wanted=["item_id", "title"], used=["sku"]
    )
    assert found == {"title": "name"}


def test_missing_columns_come_with_what_to_paste():
    mapping = item_mapping({}, (), binding="Tables.item_columns")
    with pytest.raises(InputError) as error:
        present_columns("feed.csv", SHOPIFY, mapping)
    assert "column 'item_id' (our 'item_id') is missing" in str(error.value)
    pasted = """--gin.ITEM_COLUMNS="{'item_id': 'Handle', 'title': 'Title'}\""""
    assert str(error.value).endswith(pasted)

    mapping = judgement_mapping({"label": "grade"}, binding="Tables.judgement_columns")
    with pytest.raises(InputError) as error:
        present_columns("judged.csv", ["search_term", "grade", "doc_id"], mapping)
    pasted = "\"{'label': 'grade', 'query': 'search_term', 'item_id': 'doc_id'}\""
    assert str(error.value).endswith(f"perhaps --gin.JUDGEMENT_COLUMNS={pasted}")
    with pytest.raises(InputError, match="no column for label, .*'label': 'relevance'"):
        mapping = judgement_mapping({}, binding="Tables.judgement_columns")
        present_columns("judged.csv", ["query", "item_id", "relevance"], mapping)


def test_what_is_pasted_is_what_gin_reads():
    columns = {"title": 'it\'s a "name"', "brand": "$`b\\"}
    flag = suggestions.binding("items", columns)
    shell = re.fullmatch(r'--gin\.ITEM_COLUMNS="(.*)"', flag)[1]
    value = re.sub(r'\\(["$`\\])', r"\1", shell)
    with gin.unlock_config():
        assert (
            gin.config_parser.ConfigParser(value, gin.config.ParserDelegate()).parse_value()
            == columns
        )


def test_columns_read_and_not_read_are_listed():
    names = ["sku", "title", "color", "note"]
    columns = {"item_id": "sku", "title": "title", "colour": "colour"}
    read, more = suggestions.column_findings(names, table="items", columns=columns)
    assert read.text == "columns read: sku as item_id, title; not read: color, note"
    assert not read.is_fault
    assert more.is_fault and more.text.startswith("1 of 2 columns that are not read")
    assert "\"{'item_id': 'sku', 'colour': 'color'}\"" in more.text
    (only,) = suggestions.column_findings(
        ["item_id", "title"], table="items", columns={"item_id": "item_id", "title": "title"}
    )
    assert only.text.endswith("not read: none")
