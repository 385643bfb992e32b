import numpy as np

from dsirm_jax.ingestion.shop.items import Stock, item_ids


def test_any_row_is_made_without_those_before_it():
    stock = Stock(items=10**8, seed=0)
    families = np.array([3, 4, 1_000_000, 24_999_999])
    items, types, values = stock.attributes(families)
    for family in families:
        one = stock.attributes(np.array([family]))
        own = items // 4 == family
        np.testing.assert_array_equal(one[0], items[own])
        np.testing.assert_array_equal(one[1], types[own])
        np.testing.assert_array_equal(one[2], values[:, own])


def test_ids_are_numbers_to_the_base_36():
    for seed in (0, 10**12):
        numbers = np.array([0, 1, 35, 10**8 - 1])
        ids = item_ids(numbers, seed=seed).to_pylist()
        codes = [(number * 2654435761 + seed) % 2**36 for number in numbers.tolist()]
        assert [int(id_[1:], 36) for id_ in ids] == codes
        assert {len(id_) for id_ in ids} == {8} and {id_[0] for id_ in ids} == {"P"}
