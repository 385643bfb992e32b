import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsirm_jax.data.identity import QueryIdentity
from dsirm_jax.data.pairs import NO_ITEM, held_out_queries, positives_of


def queries_file(path, queries, *, identity=None):
    table = pa.table({"query": queries})
    pq.write_table(table.replace_schema_metadata(identity and identity.metadata()), path)
    return path


def test_spellings_are_held_out_together_and_other_queries_as_without_them(tmp_path):
    names = [f"red shoe {number}" for number in range(400)]
    drawn = np.random.Generator(np.random.Philox(key=7)).random(400) < 0.3
    alone = queries_file(tmp_path / "alone.parquet", names)
    np.testing.assert_array_equal(held_out_queries(alone, share=0.3, seed=7), drawn)
    spelt = [*names, *(name.upper() for name in names), *(f" {name} " for name in names)]
    file = queries_file(tmp_path / "spelt.parquet", spelt)
    found = held_out_queries(file, share=0.3, seed=7).reshape(3, 400)
    first = np.random.Generator(np.random.Philox(key=7)).random(1200)[:400] < 0.3
    np.testing.assert_array_equal(found, np.stack([first] * 3))
    assert 0.2 < first.mean() < 0.4


def test_what_spellings_are_is_what_the_table_was_split_by(tmp_path):
    names = [*(f"shoe {n}" for n in range(200)), *(f"{n}-shoe" for n in range(200))]
    for identity, together in (
        (None, False),
        (QueryIdentity(punctuation=True, word_order=True), True),
    ):
        file = queries_file(tmp_path / f"{together}.parquet", names, identity=identity)
        one, other = held_out_queries(file, share=0.5, seed=0).reshape(2, 200)
        assert np.array_equal(one, other) is together


def test_positives_lists_every_relevant_item_of_each_query():
    pairs = np.array([[2, 5], [0, 1], [2, 3], [0, 9], [2, 8]])
    expected = [[1, 9, NO_ITEM], [NO_ITEM] * 3, [3, 5, 8], [NO_ITEM] * 3]
    positives = positives_of(pairs, queries=3)
    np.testing.assert_array_equal(positives, expected)
    assert (positives[-1] == NO_ITEM).all()
