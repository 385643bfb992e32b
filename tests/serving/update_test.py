import dataclasses
import os
import shutil
import sys

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data.identity import PLAIN
from dsirm_jax.data.item_text import ItemText
from dsirm_jax.io import lock
from dsirm_jax.io.checksums import checksums
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.nearest.build import build
from dsirm_jax.relevance.nearest.lengths import unit
from dsirm_jax.relevance.nearest.lists import Listed, lists_file, save
from dsirm_jax.serving.bundle.contents import open_bundle, seal_bundle
from dsirm_jax.serving.bundle.manifest import CARD
from dsirm_jax.serving.update import update
from dsirm_jax.sids import trie as tries
from tests.serving import tiny

NEW_QUERIES = ["green phone case", "ruž mug", "Ünknown thing"]


@pytest.fixture
def path(made, tmp_path):
    return shutil.copytree(made, tmp_path / "bundle")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Items, of which three are there as they are and one stands there twice, and queries.

    Of its two rows the last one is the item, as in `prepare`.
    """
    folder = tmp_path_factory.mktemp("tables")
    rows = [tiny.items(70, 71)[0] | {"title": "another title"}, *tiny.items(57, 80)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")
    asked = "".join(f"{query}\n" for query in [*NEW_QUERIES, NEW_QUERIES[0], tiny.QUERIES[0]])
    (folder / "queries.csv").write_text(f"query\n{asked}")
    return {"items": str(folder / "items.parquet"), "queries": str(folder / "queries.csv")}


@pytest.fixture(scope="module")
def updated(made, tables, tmp_path_factory):
    path = shutil.copytree(made, tmp_path_factory.mktemp("updated") / "bundle")
    update(path, **tables)
    return path


def test_the_card_stays(path, tables):
    (path / CARD).write_text("# Shoes\n")
    seal_bundle(
        path, dataclasses.replace(open_bundle(path).manifest, files=checksums(path, [CARD]))
    )
    update(path, queries=tables["queries"])
    assert (path / CARD).read_text() == "# Shoes\n"
    assert CARD in open_bundle(path).manifest.files


def check_same(one, other):
    """Compares two catalogues of the same items."""
    count = len(one)
    assert list(one.ids) == list(other.ids)
    assert one.items(range(count)) == other.items(range(count))
    np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-6)
    np.testing.assert_array_equal(one.sids, other.sids)
    np.testing.assert_array_equal(one.numbers, other.numbers)
    np.testing.assert_array_equal(one.categories, other.categories)
    np.testing.assert_array_equal(one.log_shares, other.log_shares)
    jax.tree.map(np.testing.assert_array_equal, one.digests, other.digests)
    assert one.statistics.names == other.statistics.names
    assert one.statistics.pieces.documents == count
    for name in ("with_piece", "mean_length"):
        pieces = [getattr(of.statistics.pieces, name) for of in (one, other)]
        np.testing.assert_array_equal(*pieces)
    np.testing.assert_array_equal(one.postings.rows, other.postings.rows)
    leaves = [tries.enumerate_sids(of.trie) for of in (one, other)]
    np.testing.assert_array_equal(*leaves)
    assert tries.forms(one.trie) == tries.forms(other.trie)
    for query in tiny.QUERIES:
        a, b = one.cached(query), other.cached(query)
        np.testing.assert_array_equal(a.beams.sids, b.beams.sids)
        np.testing.assert_allclose(a.beams.log_probs, b.beams.log_probs, atol=1e-5)
        np.testing.assert_allclose(a.items.cosine, b.items.cosine, atol=1e-6)
        assert (a.items.row == b.items.row).mean() > 0.9  # ties come in any order
        np.testing.assert_array_equal(a.queries.row, b.queries.row)


def test_an_update_equals_the_bundle_of_the_larger_catalogue(updated, tmp_path):
    found = open_bundle(updated)
    assert (found.manifest.items, found.manifest.queries) == (80, len(tiny.QUERIES) + 3)
    check_same(found.catalogue, open_bundle(tiny.make(tmp_path / "larger", count=80)).catalogue)
    assert "newcomer" in found.catalogue.statistics.names.brands


def test_items_change_and_go_as_if_the_bundle_had_been_made_of_what_is_left(path, tmp_path):
    """One new item, two that change (one but for its price), six that go; votes for these go."""
    rows, gone = tiny.items(0, 61), [3, 40, 41, 42, 43, 44]
    changed = [rows[6] | {"title": "grau garden hose, long"}, rows[59] | {"price": 3.25}]
    write = {"items": [rows[5], *changed, rows[60]], "removed": [rows[n] for n in gone]}
    for name, table in write.items():
        pq.write_table(pa.Table.from_pylist(table), tmp_path / f"{name}.parquet")
    before = open_bundle(path).catalogue
    update(path, **{name: str(tmp_path / f"{name}.parquet") for name in write})
    kept = [row for number, row in enumerate(rows[:60]) if number not in (6, 59, *gone)]
    listed = [*kept, *changed, rows[60]]
    found = open_bundle(path)
    assert (found.manifest.items, found.manifest.queries) == (55, len(tiny.QUERIES))
    expected = open_bundle(tiny.make(tmp_path / "expected", listed=listed)).catalogue
    check_same(found.catalogue, expected)

    def judged(catalogue):
        _, (items, verdicts) = catalogue.voters
        return [
            {catalogue.items([item])[0].item_id: verdict for item, verdict in votes if verdict}
            for votes in (zip(*row, strict=True) for row in zip(items, verdicts, strict=True))
        ]

    left = [
        {item_id: verdict for item_id, verdict in votes.items() if item_id != "item 3"}
        for votes in judged(before)
    ]
    assert judged(found.catalogue) == left != judged(before)
    assert any("item 6" in votes for votes in left)
    np.testing.assert_array_equal(found.catalogue.voters.vectors, before.voters.vectors)


def test_where_nothing_is_new_nothing_is_written(path, tmp_path, caplog):
    pq.write_table(pa.Table.from_pylist(tiny.items(0, 60)), tmp_path / "items.parquet")
    (tmp_path / "gone.csv").write_text("sku\nno such item\n")
    (tmp_path / "queries.csv").write_text(f"query\n{tiny.QUERIES[0].upper()}\n")
    before = contents(path)
    with caplog.at_level("INFO"):
        update(
            path,
            items=str(tmp_path / "items.parquet"),
            queries=str(tmp_path / "queries.csv"),
        )
        update(path, removed=str(tmp_path / "gone.csv"), columns={"item_id": "sku"})
        (tmp_path / "none.csv").write_text("item_id\n")
        update(path, removed=str(tmp_path / "none.csv"))
    assert contents(path) == before | {"update.lock": contents(path)["update.lock"]}
    said = [record.getMessage() for record in caplog.records]
    assert said.count(f"{path}: all is there already, and nothing is written") == 3
    assert f"{tmp_path / 'gone.csv'}: 1 of its 1 ids are those of no item" in said


def test_what_cannot_go_is_refused(path, tables, tmp_path):
    file = tmp_path / "gone.csv"
    before = contents(path)
    file.write_text("item_id\nitem 70\nitem 5\n")
    pq.write_table(pa.Table.from_pylist(tiny.items(5, 6)), tmp_path / "items.parquet")
    with pytest.raises(InputError, match=r"^item_id item 5 is in .*items.parquet and in .*gone"):
        update(path, items=str(tmp_path / "items.parquet"), removed=str(file))
    file.write_text(f"item_id\nitem 5\n{'x' * 600}\n")
    with pytest.raises(InputError, match=rf"^{file} row 2: column item_id = .*longer than"):
        update(path, removed=str(file))
    file.write_text(
        "".join(f"{row['item_id']}\n" for row in [{"item_id": "item_id"}, *tiny.items(0, 60)])
    )
    with pytest.raises(InputError, match=f"^{file} removes all items of {path}; leave some"):
        update(path, removed=str(file))
    file.write_text("item_id,title,price,material\nitem 4,a shoe,1,x\n")
    with pytest.raises(InputError, match=rf"^{file} has no column brand, which item item 4 of the"):
        update(path, items=str(file))
    assert contents(path) == before | {"update.lock": contents(path)["update.lock"]}


def test_the_log_says_how_tables_are_read_and_which_rows_are_left_out(
    path, tables, tmp_path, caplog
):
    rows = [
        {name: row[name] for name in ("item_id", "title", "price", "material")}
        for row in pq.read_table(tables["items"]).to_pylist()
    ]
    file = tmp_path / "items.csv"
    rows = [row for row in rows if row["item_id"] not in ("item 57", "item 58", "item 59")]
    lines = [";".join(rows[0]), *(";".join(map(str, row.values())) for row in rows)]
    file.write_text("\n".join(lines).replace("None", "") + "\n")
    with caplog.at_level("INFO"):
        update(path, items=str(file))
    said = [record.getMessage() for record in caplog.records]
    assert f"{file}: values are separated by ';'" in said
    assert f"{path}: 20 items are new, 0 change, 0 go" in said
    assert f"{file}: 1 rows share their item_id with a later one, which is the item" in said
    assert open_bundle(path).catalogue.items(range(70, 71))[0].title == rows[11]["title"]


def test_new_queries_are_cached_as_the_old_ones_are(updated):
    catalogue = open_bundle(updated).catalogue
    existing = set(map(tuple, np.asarray(catalogue.sids).tolist()))
    vectors = np.asarray(catalogue.vectors)
    for query in NEW_QUERIES:
        found = catalogue.cached(query)
        assert set(map(tuple, found.beams.sids[0].tolist())) <= existing
        best = np.sort(-(vectors @ found.vectors[0]) / np.linalg.norm(vectors, axis=1))
        np.testing.assert_allclose(found.items.cosine[0], -best[:50], atol=1e-6)
        assert (found.queries.cosine > -1).all()


@pytest.fixture
def listed(path):
    """A bundle whose items and training queries are found by lists."""
    opened = open_bundle(path)
    old = opened.catalogue
    for name, vectors in (("items", old.vectors), ("voters", old.voters.vectors)):
        lists = build(np.asarray(vectors), queries=np.asarray(old.vectors), k=5, recall=1.0)
        save(lists_file(old.folder, name), lists)
    seal_bundle(path, opened.manifest)
    return path


def test_lists_take_new_items_up_and_training_queries_keep_theirs(listed, tables):
    before = open_bundle(listed).catalogue
    kept = lists_file(before.folder, "voters").read_bytes()
    update(listed, **tables)
    after = open_bundle(listed).catalogue
    assert isinstance(after.item_search, Listed)
    assert lists_file(after.folder, "voters").read_bytes() == kept
    lists = after.item_search.lists
    np.testing.assert_array_equal(np.sort(lists.rows), np.arange(80))
    # So many further items have recall measured anew.
    assert (before.item_search.lists.measured.candidates, lists.measured.candidates) == (60, 80)
    vectors = np.asarray(after.vectors)
    found = after.item_search.nearest(vectors[60:], k=1)
    np.testing.assert_allclose(found.cosine[:, 0], 1, atol=1e-6)


def test_lists_hold_what_is_left_and_find_for_cached_queries(listed, tmp_path):
    gone = tmp_path / "gone.csv"
    gone.write_text("item_id\n" + "".join(f"item {number}\n" for number in range(0, 60, 6)))
    update(listed, removed=str(gone))
    after = open_bundle(listed).catalogue
    assert isinstance(after.item_search, Listed)
    np.testing.assert_array_equal(np.sort(after.item_search.lists.rows), np.arange(50))
    assert after.item_search.lists.measured.candidates == 50
    for query in tiny.QUERIES:
        cached = after.cached(query)
        cosines = np.sort(after.vectors @ unit(cached.vectors[0]))[::-1]
        np.testing.assert_allclose(cached.items.cosine[0], cosines, atol=1e-6)


def test_queries_alone_leave_every_file_of_items_as_it_is(listed, tables):
    before = contents(open_bundle(listed).catalogue.folder)
    update(listed, queries=tables["queries"])
    after = open_bundle(listed).catalogue
    now = contents(after.folder)
    names = now.keys() | before.keys()
    assert {name for name in names if now.get(name) != before.get(name)} == {"queries.mdb"}
    for query in NEW_QUERIES:
        cached = after.cached(query)
        cosines = np.sort(after.vectors @ unit(cached.vectors[0]))[::-1][:50]
        np.testing.assert_allclose(cached.items.cosine[0], cosines, atol=1e-6)


def test_damaged_lists_are_named(listed):
    folder = open_bundle(listed).catalogue.folder
    file = lists_file(folder, "items")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=file.name):
        open_bundle(listed)
    # Whoever trusts checksums has what refers to nothing refused all the same.
    content[-1] = 0x7F
    file.write_bytes(content)
    with pytest.raises(InputError, match=file.name):
        open_bundle(listed, trust=True).catalogue  # noqa: B018
    file.unlink()
    with pytest.raises(InputError, match=file.name):
        open_bundle(listed, trust=True)


def test_new_items_are_read_as_the_runs_own_were(path, tables):
    opened = open_bundle(path)
    of_run = ItemText(attributes=("material", "type"), title_language="en")
    settings = dataclasses.replace(opened.manifest.settings, item_text=of_run)
    seal_bundle(path, dataclasses.replace(opened.manifest, settings=settings))
    update(path, **tables)
    found = open_bundle(path)
    assert found.manifest.settings.item_text == of_run
    (item,) = found.catalogue.items([61])
    assert item.text == "material: wood; type: lamp stand; blue lamp stand no. 61 Newcomer"
    (vector,) = found.models.encoder.embed([item.text], of_items=True)
    np.testing.assert_allclose(found.catalogue.vectors[61], vector, atol=1e-6)


def test_spellings_of_queries_are_cached_once(path, tmp_path):
    """By a bundle of version 0.2, too, which says nothing of spellings and gets them so."""
    opened = open_bundle(path)
    settings = dataclasses.replace(opened.manifest.settings, identity=None)
    seal_bundle(path, dataclasses.replace(opened.manifest, settings=settings))
    long = "椅子" * 200
    asked = ["RED Mug", "Ruž lamp", "RUŽ  LAMP", long]
    (tmp_path / "queries.csv").write_text("query\n" + "\n".join(asked) + "\n")
    update(path, queries=str(tmp_path / "queries.csv"))
    found = open_bundle(path)
    assert found.manifest.settings.identity == PLAIN
    assert found.manifest.queries == len(tiny.QUERIES) + 2
    spellings = [found.catalogue.spelling(query) for query in asked]
    assert spellings == ["red mug", "Ruž lamp", "Ruž lamp", long]
    (tmp_path / "queries.csv").write_text(f"query\n{'x' * 1025}\n")
    with pytest.raises(InputError, match="row 1: column query has 1025 characters"):
        update(path, queries=str(tmp_path / "queries.csv"))


def test_tensorflows_variables_are_those_of_the_new_catalogue(updated):
    import tensorflow as tf

    found = open_bundle(updated)
    loaded = tf.saved_model.load(str(updated / found.manifest.saved_model_folder))
    np.testing.assert_array_equal(loaded.kept.numpy(), [1, 2])
    for level, expected in enumerate(found.catalogue.trie.levels):
        for name, array in loaded.catalogue["trie"][level].items():
            np.testing.assert_array_equal(array.numpy(), getattr(expected, name))


def test_who_has_a_bundle_open_keeps_it_for_two_updates(path, tables, tmp_path):
    before = open_bundle(path)
    sids, titles = np.array(before.catalogue.sids), before.catalogue.items(range(60))
    update(path, **tables)
    middle = open_bundle(path)
    (tmp_path / "queries.csv").write_text("query\nyellow mug\n")
    update(path, queries=str(tmp_path / "queries.csv"))
    after = open_bundle(path)
    assert [of.manifest.catalogue for of in (before, middle, after)] == [1, 2, 3]
    assert not (path / "catalogue-0001").exists() and not (path / "saved_model/1").exists()
    np.testing.assert_array_equal(before.catalogue.sids, sids)
    assert before.catalogue.items(range(60)) == titles
    assert before.catalogue.cached(NEW_QUERIES[0]) is None
    assert len(middle.catalogue) == len(after.catalogue) == 80


def contents(path):
    """Returns the contents of all files of a folder."""
    files = (file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


class Killed(BaseException):
    pass


def test_an_update_that_stops_anywhere_leaves_a_whole_bundle(path, tables):
    """It stops at every change of the folder, one after the other, until none is left."""
    moments, left = 0, 0

    def watch(event, arguments):
        nonlocal left
        writes = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir") or (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+")
        )
        if writes and left and str(path) in str(arguments[0]):
            left -= 1
            if not left:
                raise Killed

    sys.addaudithook(watch)
    while True:
        moments += 1
        left = moments
        try:
            update(path, **tables)
        except Killed:
            assert open_bundle(path).manifest.catalogue in (1, 2)
            if open_bundle(path).manifest.catalogue == 2:
                break
        else:
            break
    left = 0
    found = open_bundle(path)
    assert moments > 10 and (found.manifest.catalogue, len(found.catalogue)) == (2, 80)


def test_columns_of_other_names_are_mapped(path, tables, updated, tmp_path):
    rows = pq.read_table(tables["items"])
    names = {"item_id": "sku", "title": "name", "category": "path"}
    paths = [" | ".join(path or []) for path in rows["category"].to_pylist()]
    place = rows.column_names.index("category")
    rows = rows.set_column(place, "category", pa.array(paths))
    rows = rows.rename_columns([names.get(name, name) for name in rows.column_names])
    pq.write_table(rows, tmp_path / "items.parquet")
    queries = tmp_path / "queries.csv"
    with open(tables["queries"]) as given:
        queries.write_text(given.read().replace("query", "search", 1))
    files = {"items": str(tmp_path / "items.parquet"), "queries": str(queries)}
    with pytest.raises(InputError, match="column 'item_id' .*name yours: --columns=item_id=sku"):
        update(path, **files)
    with pytest.raises(InputError, match="--columns names 'cost'"):
        update(path, **files, columns={"cost": "price"})
    update(path, **files, columns=names | {"query": "search"}, category_separator=" | ")
    found, expected = open_bundle(path), open_bundle(updated)
    assert found.manifest.queries == expected.manifest.queries
    one, other = found.catalogue, expected.catalogue
    assert one.items(range(80)) == other.items(range(80))
    np.testing.assert_array_equal(one.sids, other.sids)


def test_nothing_to_add_or_rows_that_are_none_are_refused_with_their_place(path, tmp_path):
    with pytest.raises(InputError, match="nothing to do: give --items=FILE, --remove"):
        update(path)
    table = tmp_path / "items.jsonl"
    table.write_text(
        '{"item_id": "a", "title": "a mug", "price": 1, "material": "x"}\n'
        '{"item_id": "b", "title": " ", "price": 1, "material": "x"}\n'
    )
    with pytest.raises(InputError, match=rf"{table} row 2: column title = .*empty title"):
        update(path, items=str(table))
    table.write_text('{"item_id": "a", "title": "a mug"}\n')
    with pytest.raises(InputError, match="'price'"):
        update(path, items=str(table))
    assert open_bundle(path).manifest.catalogue == 1
    with pytest.raises(InputError, match="no such file; name the folder of a bundle"):
        update(tmp_path / "nowhere", items=str(table))


def test_two_updates_at_once_are_refused(path, tables):
    with lock.held(path / "update.lock", what="the bundle"):
        files = contents(path)
        with pytest.raises(InputError, match=f"^bundle {path} is in use: process {os.getpid()}"):
            update(path, **tables)
    assert contents(path) == files


@pytest.mark.parametrize("folder", ["model", "saved_model/1", "catalogue-0001"])
def test_an_update_certifies_nothing_that_is_damaged(path, tables, folder):
    """Each file in turn: whatever it is copied into would get the checksum of the damage."""
    files = [file for file in (path / folder).rglob("*") if file.is_file() and file.stat().st_size]
    assert len(files) >= 4
    for file in files:
        whole = file.read_bytes()
        damaged = bytearray(whole)
        damaged[len(whole) // 3] ^= 16
        file.write_bytes(damaged)
        before = contents(path)
        with pytest.raises(InputError, match=f"^{file} is not what was written; copy the bundle"):
            update(path, **tables)
        assert contents(path) == before | {"update.lock": contents(path)["update.lock"]}
        file.write_bytes(whole)


def test_an_update_needs_a_bundle_and_leaves_no_trace_where_there_is_none(tmp_path, tables):
    with pytest.raises(InputError, match=r"manifest\.json: no such file; name the folder"):
        update(tmp_path, **tables)
    assert not [*tmp_path.iterdir()]
