from dsirm_jax.ingestion.shop import catalogue
from dsirm_jax.ingestion.shop.items import ATTRIBUTE_WIDTH


def test_the_tables_of_words_are_sound():
    types = catalogue.product_types()
    names = [name for type_ in types for name in type_.names]
    assert len(names) == len(set(names))
    assert len(types) > 100
    assert 10 <= len({type_.department for type_ in types}) <= 16
    first_names = {type_.names[0] for type_ in types}
    brands = {brand for type_ in types for brand in type_.brands}
    assert len({catalogue.brand_name(brand) for brand in brands}) == len(brands)
    for type_ in types:
        assert set(type_.attributes) <= set(catalogue.attribute_columns())
        assert set(type_.purposes) <= first_names
        assert len(type_.attributes) - 2 <= ATTRIBUTE_WIDTH
        assert type_.feature
        assert "fits" not in type_.attributes or type_.purposes
    for attribute, values in catalogue.wordings().items():
        wordings = [wording for value in values for wording in value]
        assert len(wordings) == len(set(wordings)), attribute
        assert all(len(value) >= 2 for value in values), attribute
        assert any(attribute in type_.attributes for type_ in types), attribute
