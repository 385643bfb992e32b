import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.bundle import store

KEYS = st.binary(min_size=1, max_size=30)


@settings(deadline=None, max_examples=40)
@given(pairs=st.dictionaries(KEYS, st.binary(max_size=5000), max_size=30), others=st.sets(KEYS))
def test_what_is_written_is_read_and_nothing_else(pairs, others, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "file.mdb"
    store.write_store(path, pairs.items())
    found = store.open_store(path)
    assert len(found) == len(pairs)
    assert found.get(pairs) == list(pairs.values())
    assert found.get(others - set(pairs)) == [None] * len(others - set(pairs))
    assert list(found) == sorted(pairs.items())


def test_a_file_is_open_as_often_as_anyone_likes(tmp_path):
    path = tmp_path / "file.mdb"
    store.write_store(path, [(b"a", b"1")])
    one, two = store.open_store(path), store.open_store(path)
    path.unlink()  # whoever has it open keeps it
    assert one.get([b"a"]) == two.get([b"a"]) == [b"1"]


def test_a_file_that_is_none_of_ours_is_named(tmp_path):
    with pytest.raises(InputError, match=r"file\.mdb: not a readable LMDB file"):
        store.open_store(tmp_path / "file.mdb")
    (tmp_path / "file.mdb").write_bytes(b"something else" * 1000)
    with pytest.raises(InputError, match=r"file\.mdb: not a readable LMDB file"):
        store.open_store(tmp_path / "file.mdb")


def test_keys_of_long_texts_differ_where_the_texts_do():
    short, long = "ä" * 255, "ä" * 300
    assert store.key(short) == short.encode()
    keys = [store.key(long + end) for end in ("", "a", "b")]
    assert len(set(keys)) == 3 and {len(key) for key in keys} == {store.KEY_BYTES}


def test_keys_of_numbers_sort_as_the_numbers_do():
    numbers = [0, 1, 255, 256, 65536, 2**32 - 1]
    assert store.keys_of_numbers(numbers) == sorted(store.keys_of_numbers(numbers))


def test_a_file_that_ends_before_its_last_page_is_named_and_not_mapped(tmp_path):
    path = tmp_path / "file.mdb"
    store.write_store(path, [(bytes([n]), bytes(3000)) for n in range(40)])
    whole = path.read_bytes()
    for length in (0, 100, 4096, 4200, len(whole) // 2, len(whole) - 1):
        path.unlink()
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"file\.mdb: not a readable LMDB file; copy"):
            store.open_store(path)


def test_a_key_without_a_value_is_named_with_the_file(tmp_path):
    path = tmp_path / "file.mdb"
    store.write_store(path, [(b"a", b"1")])
    assert store.open_store(path).existing([b"a", b"a"]) == [b"1", b"1"]
    with pytest.raises(InputError, match=r"file\.mdb: 1 of 2 keys have no value; copy the bundle"):
        store.open_store(path).existing([b"a", b"b"])


@settings(deadline=None, max_examples=40)
@given(
    there=st.dictionaries(KEYS, st.binary(max_size=5000), max_size=30),
    pairs=st.lists(st.tuples(KEYS, st.binary(max_size=20)), max_size=30),
)
def test_rows_beside_those_of_another_file_are_all_there(there, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    store.write_store(folder / "one", there.items())
    before = (folder / "one").read_bytes()
    store.write_store(folder / "both", pairs, beside=folder / "one")
    assert (folder / "one").read_bytes() == before
    # Of a key's values the first stays, and those that were there are first.
    expected = dict([*there.items(), *pairs][::-1])
    assert dict(store.open_store(folder / "both")) == expected
