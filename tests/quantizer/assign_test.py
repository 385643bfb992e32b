import dataclasses
import os

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data.vectors import shard, write_vectors
from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer import assign as assign_module
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.fitted import FittedQuantizer
from dsirm_jax.quantizer.kinds.hierarchical_kmeans import BranchingCodebook, HierarchicalKmeans
from dsirm_jax.quantizer.kinds.rq_vae import RqVae
from dsirm_jax.quantizer.model import Codebook
from dsirm_jax.quantizer.training_items import TrainingItems
from dsirm_jax.sids.codes import read_sids


def make_quantizer(*, rows=50, seed=0):
    """Returns a quantizer and a catalogue."""
    rng = np.random.default_rng(seed)
    kind = RqVae(latent_dim=4, hidden_dim=8)
    config = QuantizerConfig(codebook_sizes=(5, 5, 5), pin_depth=1, kind=kind)
    items = rng.normal(size=(rows, 6)).astype("f4")
    return {
        "fitted": FittedQuantizer(
            config=config,
            dim=6,
            params=kind.module(dim=6).init(jax.random.key(0), items),
            codebooks=tuple(
                Codebook(codewords=words, count=np.ones(5, "f4"), total=words)
                for words in rng.normal(size=(3, 5, 4)).astype("f4")
            ),
            names=tuple("abcde"),
        ),
        "catalogue": TrainingItems(
            items=items,
            queries=np.zeros((1, 6), "f4"),
            pairs=np.zeros((0, 2), np.int64),
            pinned=rng.integers(-1, 5, rows).astype(np.int32),
        ),
    }


def assign_all(*, fitted, catalogue, **more):
    return assign_module.assign_vectors(
        fitted=fitted, vectors=catalogue.items, pinned=catalogue.pinned, **more
    )


def test_chunks_of_any_size_give_the_codes_of_one_pass():
    shared = make_quantizer()
    catalogue = shared["catalogue"]
    codes, distances, errors = assign_all(**shared)
    by_seven = assign_all(**shared, chunk_rows=7)
    np.testing.assert_array_equal(codes, by_seven.codes)
    np.testing.assert_allclose(distances, by_seven.distances, rtol=1e-5)
    np.testing.assert_allclose(errors, by_seven.errors, rtol=1e-5)
    known = catalogue.pinned >= 0
    np.testing.assert_array_equal(codes[known, 0], catalogue.pinned[known])


def make_branching(seed=0):
    rng = np.random.default_rng(seed)
    config = QuantizerConfig(codebook_sizes=(5, 3), pin_depth=1, kind=HierarchicalKmeans())
    words, children = (rng.normal(size=(size, 6)).astype("f4") for size in (5, 11))
    codebooks = (
        Codebook(codewords=words, count=np.ones(5, "f4"), total=words),
        BranchingCodebook(codewords=children, first=np.array([0, 1, 4, 6, 8, 11], "i4"), size=3),
    )
    return FittedQuantizer(config=config, dim=6, params={}, codebooks=codebooks)


@pytest.mark.parametrize("devices", [2, 4, 8])
@pytest.mark.parametrize("kind", ["residual", "hierarchical"])
def test_codes_do_not_depend_on_the_number_of_devices(kind, devices):
    shared = make_quantizer()
    fitted = shared["fitted"] if kind == "residual" else make_branching()
    chunk = assign_module.VectorChunk(shared["catalogue"].items, shared["catalogue"].pinned)
    (one,), (many,) = (
        assign_module.assign(fitted=fitted, chunks=[chunk], devices=jax.devices()[:count])
        for count in (1, devices)
    )
    np.testing.assert_array_equal(one.codes, many.codes)
    np.testing.assert_allclose(one.distances, many.distances, rtol=1e-5)
    np.testing.assert_allclose(one.errors, many.errors, rtol=1e-5)


def test_distances_are_those_to_the_prefix_vectors():
    shared = make_quantizer()
    codes, distances, errors = assign_all(**shared)
    items, fitted = shared["catalogue"].items, shared["fitted"]
    latents = fitted.model.apply(fitted.params, items, method="encode")
    words = [np.asarray(book.codewords) for book in fitted.codebooks]
    prefix = np.cumsum([w[c] for w, c in zip(words, codes.T, strict=True)], axis=0)
    np.testing.assert_allclose(
        distances, np.linalg.norm(latents - prefix, axis=-1).T, rtol=1e-4, atol=1e-5
    )
    decoded = fitted.model.apply(fitted.params, prefix[-1], method="decode")
    np.testing.assert_allclose(errors, np.sum((items - decoded) ** 2, axis=1), rtol=1e-4)


def test_no_vectors_have_no_sids():
    fitted = make_quantizer()["fitted"]
    none = assign_module.assign_vectors(fitted=fitted, vectors=np.zeros((0, 6), "f4"))
    assert (none.codes.shape, none.distances.shape, none.errors.shape) == ((0, 3), (0, 3), (0,))
    assert none.codes.dtype == np.int32


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_mapped_vectors_are_sent_as_they_lie(tmp_path, monkeypatch, dtype):
    shared, sent = make_quantizer(), []
    mapped = np.memmap(tmp_path / "vectors", dtype, "w+", shape=(50, 6))
    mapped[:] = shared["catalogue"].items

    def stream(blocks, *, put, step):
        for key, chunk in blocks:
            sent.append(chunk.vectors)
            yield key, jax.tree.map(np.asarray, step(put(chunk)))

    with monkeypatch.context() as patch:
        patch.setattr(assign_module, "stream", stream)
        devices = jax.devices()[:2]
        found = assign_module.assign_vectors(
            fitted=shared["fitted"], vectors=mapped, chunk_rows=16, devices=devices
        )
    assert [len(block) for block in sent] == [16] * 4  # the last one is filled up
    for number, block in enumerate(sent[:3]):
        assert block.dtype == np.float32 if dtype == "f8" else np.shares_memory(block, mapped)
        np.testing.assert_array_equal(block, mapped[16 * number : 16 * (number + 1)].astype("f4"))
    rounded = np.asarray(mapped, np.float32)
    expected = assign_module.assign_vectors(fitted=shared["fitted"], vectors=rounded)
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_allclose(found.errors, expected.errors, rtol=1e-5)


def test_a_device_with_memory_of_its_own_gives_the_same(monkeypatch):
    shared = make_quantizer(rows=9000)
    expected = assign_all(**shared)
    monkeypatch.setattr(assign_module, "memory_limit", lambda devices: 2**36)
    found = assign_all(**shared)
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_in_memory_that_is_not_finite_is_named(value):
    shared = make_quantizer()
    items = shared["catalogue"].items
    items[33, 2] = value
    with pytest.raises(InputError, match=rf"^vectors\[33\] has {value} among its numbers; fix"):
        assign_module.assign_vectors(fitted=shared["fitted"], vectors=items, chunk_rows=7)


def test_vectors_of_another_width_are_refused():
    with pytest.raises(InputError, match=r"shape \(2, 5\) .* pass \[row, 6\]"):
        assign_module.assign_vectors(
            fitted=make_quantizer()["fitted"], vectors=np.zeros((2, 5), "f4")
        )


@pytest.mark.parametrize(
    "rows",
    [np.ones((1, 6)), np.full((7, 6), 0.1), np.zeros((3, 6))],
    ids=["one row", "tenths", "zeros"],
)
def test_vectors_that_are_all_the_same_have_no_variance(rows):
    assert assign_module.variance(rows.astype("f4")) == 0.0


def test_variance_is_that_of_all_dimensions_together():
    items = np.random.default_rng(0).normal(3.0, 2.0, size=(50, 6)).astype("f4")
    np.testing.assert_allclose(
        assign_module.variance(items), np.var(items, axis=0).sum(), rtol=1e-5
    )


def test_beams_come_nearer():
    shared = make_quantizer()
    fitted, catalogue = shared["fitted"], shared["catalogue"]
    more = dataclasses.replace(fitted, config=dataclasses.replace(fitted.config, beams=4))
    greedy, beam = (
        assign_all(fitted=each, catalogue=catalogue).distances[:, -1] for each in (fitted, more)
    )
    assert (beam <= greedy + 1e-6).all()
    assert beam.mean() < greedy.mean()


def write_shards(folder, catalogue, counts):
    ids = [f"i{number}" for number in range(len(catalogue.items))]
    paths, start = [], 0
    for number, count in enumerate(counts):
        paths.append(shard(folder / "items-*.parquet", number=number, total=len(counts)))
        rows = slice(start, start + count)
        write_vectors(paths[-1], ids[rows], catalogue.items[rows], id_column="item_id")
        start += count
    return ids, paths


@pytest.mark.parametrize(("devices", "cap"), [(1, None), (3, 2), (8, None)])
def test_shards_joined_are_the_catalogue_in_its_order(tmp_path, devices, cap):
    shared = make_quantizer()
    codes, distances, errors = assign_all(**shared)
    catalogue = shared.pop("catalogue")
    ids, vectors = write_shards(tmp_path, catalogue, [20, 0, 7, 23])
    paths = assign_module.assign_shards(
        **shared,
        vectors=vectors,
        pattern=tmp_path / "sids-*.parquet",
        pinned=catalogue.pinned,
        chunk_rows=7,
        devices=jax.devices()[:devices],
    )
    assign_module.join_sids(paths, into=tmp_path / "sids.parquet", sizes=(5, 5, 5), bucket_cap=cap)
    table = read_sids(tmp_path / "sids.parquet")
    assert (table.item_ids.to_pylist(), table.version) == (ids, shared["fitted"].version)
    np.testing.assert_array_equal(table.sids, codes)
    np.testing.assert_allclose(table.distances, distances, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(table.errors, errors, rtol=1e-5)
    assert pq.read_metadata(tmp_path / "sids.parquet").num_row_groups == 3  # one a shard with rows
    names = pq.read_schema(tmp_path / "sids.parquet").names
    assert ("suffix" in names) == (cap is not None)
    assert not list(tmp_path.glob("sids-*"))


def test_a_finished_shard_is_kept_unless_it_is_of_another_version(tmp_path):
    shared = make_quantizer()
    catalogue = shared.pop("catalogue")
    _, vectors = write_shards(tmp_path, catalogue, [20, 30])
    shared |= {"vectors": vectors, "pattern": tmp_path / "sids-*.parquet"}
    for name in ("sids-00001-of-00003.parquet", "sids-mine.parquet"):
        (tmp_path / name).touch()
    first, second = assign_module.assign_shards(**shared)
    mine = tmp_path / "sids-mine.parquet"
    assert sorted(tmp_path.glob("sids-*")) == [first, second, mine]
    os.utime(first, ns=(0, 0))  # a clock may show the same when the shard is written anew
    whole = pq.read_table(second)
    second.unlink()
    assign_module.assign_shards(**shared)
    assert (first.stat().st_mtime_ns, pq.read_table(second)) == (0, whole)
    shared["fitted"] = dataclasses.replace(shared["fitted"], names=())
    assign_module.assign_shards(**shared)
    assert first.stat().st_mtime_ns != 0
    assert pq.read_schema(first).metadata[b"sid_version"].decode() == shared["fitted"].version


def test_an_item_stays_where_it_was_while_that_costs_little(tmp_path):
    shared = make_quantizer()
    catalogue, fitted = shared["catalogue"], shared["fitted"]
    nearest = assign_all(**shared)
    rng = np.random.default_rng(1)
    previous = rng.integers(0, 5, (50, 3)).astype(np.int32)
    previous[:10] = nearest.codes[:10]
    previous[10:15] = -1
    latents = fitted.model.apply(fitted.params, catalogue.items, method="encode")
    words = np.stack([book.codewords for book in fitted.codebooks])
    prefix = sum(words[level][previous[:, level]] for level in range(3))
    before = np.sum((np.asarray(latents) - prefix) ** 2, axis=1)
    best = nearest.distances[:, -1] ** 2
    same_category = (catalogue.pinned < 0) | (catalogue.pinned == previous[:, 0])
    for stay in (0.0, 0.7):
        chunk = assign_module.VectorChunk(catalogue.items, catalogue.pinned, previous)
        (kept,) = assign_module.assign(fitted=fitted, chunks=[chunk], stay=stay)
        stays = (previous[:, 0] >= 0) & (before <= (1 + stay) * best + 1e-6) & same_category
        stays[:10] = True
        assert 10 < stays.sum() < 45 or not stay
        np.testing.assert_array_equal(kept.codes, np.where(stays[:, None], previous, nearest.codes))
        distances = np.where(stays, before, best)
        np.testing.assert_allclose(kept.distances[:, -1] ** 2, distances, rtol=1e-4)


def test_a_vector_that_is_not_finite_is_named_and_leaves_no_shard(tmp_path):
    shared = make_quantizer()
    catalogue = shared.pop("catalogue")
    catalogue.items[12] = np.inf
    _, vectors = write_shards(tmp_path, catalogue, [50])
    shared |= {"vectors": vectors, "pattern": tmp_path / "sids-*.parquet", "chunk_rows": 7}
    with pytest.raises(InputError, match=r"items-00000-of-00001.* row 13: .* has inf"):
        assign_module.assign_shards(**shared)
    assert not list(tmp_path.glob("sids-*"))
