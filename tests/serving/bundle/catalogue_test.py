import numpy as np
import pyarrow as pa
import pytest

from dsirm_jax.data.identity import PLAIN
from dsirm_jax.serving.bundle import catalogue as catalogues
from dsirm_jax.serving.bundle import item_parts
from dsirm_jax.serving.bundle.contents import open_bundle
from dsirm_jax.serving.formats import saved_model
from dsirm_jax.sids import prefix_match
from dsirm_jax.sids import trie as tries
from tests.serving import tiny


@pytest.fixture(scope="module")
def catalogue(made):
    return open_bundle(made).catalogue


def test_items_are_found_by_id_and_by_number(catalogue):
    rows = tiny.with_text(tiny.items(0, 60))
    ids = [row["item_id"] for row in rows]
    assert len(catalogue) == 60
    numbers = catalogue.numbers_of(["no such item", *reversed(ids)])
    assert numbers.tolist() == [catalogues.UNKNOWN, *reversed(range(60))]
    for row, item in zip(rows, catalogue.items(range(60)), strict=True):
        attributes = {"price": row.pop("price"), "material": row.pop("material")}
        row["category"] = tuple(row["category"] or ())
        assert vars(item) == row | {"number": item.number, "attributes": attributes}
    price = [np.nan if row["price"] is None else row["price"] for row in tiny.items(0, 60)]
    np.testing.assert_array_equal(catalogue.numbers[:, 0], price)


def test_items_below_a_prefix_are_those_whose_sids_start_so(catalogue):
    sids = np.asarray(catalogue.sids)
    for prefix in ([], [0], sids[7, :2].tolist(), sids[9].tolist(), [3, 4, 5]):
        expected = np.flatnonzero((sids[:, : len(prefix)] == prefix).all(axis=1))
        assert sorted(catalogue.items_below(prefix)) == expected.tolist()


def test_log_shares_of_nodes_are_those_of_the_items_below(catalogue):
    sids = np.asarray(catalogue.sids, np.int32)
    expected = prefix_match.log_prefix_shares(sids, sizes=tiny.SIZES)
    of_nodes = saved_model.log_shares_of(catalogue.trie, catalogue.postings)
    for level, of in enumerate(of_nodes):
        nodes = tries.find(catalogue.trie, sids[:, : level + 1])
        np.testing.assert_allclose(of[nodes], expected[:, level], rtol=1e-6)


def test_a_query_is_cached_with_all_that_is_known_of_it(catalogue):
    assert catalogue.cached("something else") is None
    found = catalogue.cached(tiny.QUERIES[3])
    existing = set(map(tuple, np.asarray(catalogue.sids).tolist()))
    assert set(map(tuple, found.beams.sids[0].tolist())) <= existing
    assert found.beams.valid.all() and (np.diff(found.beams.log_probs) <= 0).all()
    vectors = np.asarray(catalogue.vectors)
    cosines = vectors @ found.vectors[0] / np.linalg.norm(vectors, axis=1)
    assert found.items.row.shape == (1, 50)
    best = np.argsort(-cosines, kind="stable")[:50]
    np.testing.assert_allclose(found.items.cosine[0], cosines[best], atol=1e-6)
    assert found.queries.row.shape == found.queries.cosine.shape == (1, 8)
    voters = catalogue.voters.vectors[found.queries.row[0]]
    np.testing.assert_allclose(
        found.queries.cosine[0, :7], (voters @ found.vectors[0])[:7], atol=1e-6
    )


@pytest.mark.parametrize(
    "spelling",
    ["RED mug", "Red\N{NO-BREAK SPACE}Mug", "ｒｅｄ mug"],
    ids=["case", "space", "width"],
)
def test_a_query_is_cached_under_all_its_spellings(catalogue, spelling):
    assert catalogue.spelling(spelling) == "red mug"
    found, expected = catalogue.cached(spelling), catalogue.cached("red mug")
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert catalogue.spelling("mug red") is None


def test_of_several_spellings_the_first_is_kept_and_none_is_too_long(made, tmp_path):
    opened = open_bundle(made)
    old = opened.catalogue
    one, other = old.cached("red mug"), old.cached("blue shoe")
    long = "椅子" * 300
    write_queries(
        opened, tmp_path / "c", [(["Red Mug"], one), ([long], other), (["red mug"], other)]
    )
    found = catalogues.BundleCatalogue.open(tmp_path / "c", identity=PLAIN)
    assert sorted(text for text, _ in found.cached_queries()) == ["Red Mug", long]
    assert found.spelling("red mug") == "Red Mug"
    np.testing.assert_array_equal(found.cached("red  mug").vectors, one.vectors)
    np.testing.assert_array_equal(found.cached(long).vectors, other.vectors)


def test_a_bundle_that_cached_every_spelling_by_itself_is_read(made, tmp_path):
    """One of version 0.2: keys are texts, and records have no text behind them."""
    opened = open_bundle(made)
    old = opened.catalogue
    write_queries(opened, tmp_path / "c", [([tiny.QUERIES[0]], old.cached(tiny.QUERIES[0]))])
    names = {"Red mug": "red mug", "red  lamp": "blue shoe", "blue mug": "blue mug"}
    rows = {
        text.encode(): catalogues.packed(old.cached(of)).tobytes() for text, of in names.items()
    }
    (tmp_path / "c" / catalogues.QUERIES).unlink()
    catalogues.store.write_store(tmp_path / "c" / catalogues.QUERIES, sorted(rows.items()))
    found = catalogues.BundleCatalogue.open(tmp_path / "c")
    for asked, text in [("Red mug", "Red mug"), ("red mug", "Red mug"), ("BLUE MUG", "blue mug")]:
        assert found.spelling(asked) == text
        expected = old.cached(names[text]).vectors
        np.testing.assert_array_equal(found.cached(asked).vectors, expected)
    assert found.cached("green mug") is None


def write_queries(opened, folder, queries):
    """Writes a catalogue as another one, but for its cached queries."""
    old, rows = opened.catalogue, tiny.with_text(tiny.items(0, 60))
    columns = [*((name, pa.string()) for name in ("item_id", "title", "text", "brand", "colour"))]
    columns += [("category", pa.list_(pa.string())), ("price", pa.float64())]
    catalogues.write_catalogue(
        folder,
        items=item_parts.of_tables(
            lambda: iter([pa.Table.from_pylist(rows, pa.schema(columns))]),
            numbers=("price",),
            processor=opened.models.vocabulary,
            language="en",
        ),
        vectors=[np.asarray(old.vectors)],
        sids=np.asarray(old.sids, np.int32),
        trie=old.trie,
        voters=old.voters,
        queries=queries,
    )


def test_records_give_back_what_they_were_made_of(catalogue):
    found = catalogue.cached(tiny.QUERIES[0])
    invalid = found._replace(beams=found.beams._replace(valid=np.array([[True, False, True]])))
    after = catalogues.unpacked(catalogues.packed(invalid))
    assert after.beams.valid.tolist() == [[True, False, True]]
    np.testing.assert_array_equal(after.vectors, found.vectors)
    np.testing.assert_array_equal(after.queries.row, found.queries.row)
    np.testing.assert_array_equal(after.known.log_probs, found.known.log_probs)
    np.testing.assert_array_equal(after.beams.sids, found.beams.sids)
