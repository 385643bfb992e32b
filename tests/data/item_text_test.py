import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data.item_text import TITLE, ItemText, item_text_in
from dsirm_jax.io.errors import InputError

SHOE = {
    "title": "Acme Running Shoe, 10 mm Drop, 0.5 kg",
    "brand": "Acme",
    "colour": "red",
    "category": ["Sport", "Shoes"],
    "material": " soft <b>mesh</b>",
}


def of(*attributes, language="en", **changed):
    return ItemText(attributes=attributes, title_language=language).of(SHOE | changed)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        pytest.param({}, f"{SHOE['title']} red", id="brand stands in the title"),
        pytest.param({"brand": "Zed"}, f"{SHOE['title']} Zed red", id="brand does not"),
        pytest.param({"brand": None, "colour": None}, SHOE["title"], id="neither is known"),
    ],
)
def test_without_attributes_a_text_is_title_brand_and_colour(row, text):
    assert TITLE.of(SHOE | row) == text


def test_attributes_stand_by_name_before_the_title_in_their_order():
    assert of("colour", "brand") == f"colour: red; brand: Acme; {SHOE['title']}"
    assert of("brand") == f"brand: Acme; {SHOE['title']} red"
    assert of("material", "colour") == f"material: soft mesh; colour: red; {SHOE['title']}"


def test_a_type_is_the_last_level_of_the_category_else_that_of_the_title():
    known = {"brand": None, "colour": None}
    assert of("type", **known) == f"type: Shoes; {SHOE['title']}"
    assert of("type", **known, category=None) == f"type: shoe; {SHOE['title']}"
    assert of("type", **known, category=None, language=None) == SHOE["title"]


@pytest.mark.parametrize(
    ("title", "size"),
    [
        pytest.param("Mug 350ml", "350ml", id="no space"),
        pytest.param("Phone 64 GB, 6.1 inch", "64 GB, 6.1 inch", id="two"),
        pytest.param("64 GB card, 64 GB", "64 GB", id="one twice"),
        pytest.param("Lens 50-mm", "50-mm", id="hyphen"),
        pytest.param("Pack of 12 in blue mm", "12 in", id="a word that is a unit's"),
        pytest.param("Model A64GBX 7 minutes", None, id="none"),
    ],
)
def test_a_size_is_what_the_title_says_with_a_unit(title, size):
    row = {"title": title, "brand": None, "colour": None, "category": None}
    expected = f"size: {size}; {title}" if size else title
    assert ItemText(attributes=("size",)).of(row) == expected


def test_a_table_says_how_its_texts_were_made(tmp_path):
    path = tmp_path / "items.parquet"
    for made in (TITLE, ItemText(attributes=("type", "brand"), title_language="en")):
        columns = pa.schema([("text", pa.string())], metadata=made.metadata() or None)
        pq.write_table(pa.table({"text": ["a"]}, schema=columns), path)
        assert item_text_in(path) == made
    assert TITLE.metadata() == {}  # a table is as it was


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param("brand", id="a text"),
        pytest.param(("brand", "brand"), id="twice"),
        pytest.param(("brand", 3), id="a number"),
        pytest.param(("",), id="empty"),
        pytest.param(None, id="none"),
    ],
)
def test_what_names_no_attributes_is_refused(attributes):
    with pytest.raises(InputError, match=r"ItemText.attributes is .*; bind names of attributes"):
        ItemText(attributes=attributes)


def test_an_attribute_without_a_column_is_named():
    text = ItemText(attributes=("type", "size", "fabric"))
    assert text.columns(["fabric", "price"]) == ("brand", "colour", "fabric", "category")
    with pytest.raises(InputError, match=r"no attribute 'fabric': bind .*\(price, brand"):
        text.columns(["price"])
