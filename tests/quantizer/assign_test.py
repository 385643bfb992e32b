import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data.vectors import shard, write_vectors
from dsirm_jax.errors import InputError
from dsirm_jax.quantizer import assign as assign_module
from dsirm_jax.quantizer.model import Autoencoder, Branches, Codebook
from dsirm_jax.quantizer.train import Catalogue
from dsirm_jax.sids.codes import read_sids


def make_quantizer(*, rows=50, seed=0):
    """Returns keyword arguments of `assign_catalogue`."""
    rng = np.random.default_rng(seed)
    model = Autoencoder(dim=6, latent_dim=4, hidden_dim=8)
    items = rng.normal(size=(rows, 6)).astype("f4")
    return {
        "model": model,
        "params": model.init(jax.random.key(0), items),
        "codebooks": tuple(
            Codebook(codewords=words, count=np.ones(5, "f4"), total=words)
            for words in rng.normal(size=(3, 5, 4)).astype("f4")
        ),
        "catalogue": Catalogue(
            items=items,
            queries=np.zeros((1, 6), "f4"),
            pairs=np.zeros((0, 2), np.int64),
            pinned=rng.integers(-1, 5, rows).astype(np.int32),
        ),
    }


def test_chunks_of_any_size_give_the_codes_of_one_pass(monkeypatch):
    shared = make_quantizer()
    catalogue = shared["catalogue"]
    codes, distances, error = assign_module.assign_catalogue(**shared)
    monkeypatch.setattr(assign_module, "ROWS", 7)
    by_seven = assign_module.assign_catalogue(**shared)
    np.testing.assert_array_equal(codes, by_seven[0])
    np.testing.assert_allclose(distances, by_seven[1], rtol=1e-5)
    known = catalogue.pinned >= 0
    np.testing.assert_array_equal(codes[known, 0], catalogue.pinned[known])
    assert error > 0


def test_the_version_changes_with_all_that_decides_codes():
    words = np.eye(2, dtype="f4")
    book = Codebook(codewords=words, count=np.ones(2), total=words)
    branches = Branches(codewords=words, first=np.array([0, 1, 2]), size=2)
    moved = Branches(codewords=words, first=np.array([0, 2, 2]), size=2)
    given = {"params": {"kernel": words}, "codebooks": (book, branches), "names": ("shoes",)}
    version = assign_module.sid_version(**given)
    counted = (book.replace(count=np.zeros(2)), branches)
    assert version == assign_module.sid_version(**given | {"codebooks": counted})
    others = [
        {"params": {"kernel": words + 1}},
        {"codebooks": (book.replace(codewords=words + 1), branches)},
        {"codebooks": (book, moved)},
        {"names": ("boots",)},
        {"beams": 2},
    ]
    versions = {assign_module.sid_version(**given | other) for other in others}
    assert len(versions | {version}) == 1 + len(others)


def test_distances_are_those_to_the_prefix_vectors():
    shared = make_quantizer()
    codes, distances, error = assign_module.assign_catalogue(**shared)
    items = shared["catalogue"].items
    latents = shared["model"].apply(shared["params"], items, method="encode")
    words = [np.asarray(book.codewords) for book in shared["codebooks"]]
    prefix = np.cumsum([w[c] for w, c in zip(words, codes.T, strict=True)], axis=0)
    np.testing.assert_allclose(
        distances, np.linalg.norm(latents - prefix, axis=-1).T, rtol=1e-4, atol=1e-5
    )
    decoded = shared["model"].apply(shared["params"], prefix[-1], method="decode")
    spread = np.sum(np.var(items, axis=0))
    np.testing.assert_allclose(
        error, np.mean(np.sum((items - decoded) ** 2, axis=1)) / spread, rtol=1e-4
    )


def test_beams_come_nearer():
    shared = make_quantizer()
    greedy, beam = (assign_module.assign_catalogue(**shared, beams=beams) for beams in (1, 4))
    assert (beam[1][:, -1] <= greedy[1][:, -1] + 1e-6).all()
    assert beam[1][:, -1].mean() < greedy[1][:, -1].mean()


def write_shards(folder, catalogue, counts):
    ids = [f"i{number}" for number in range(len(catalogue.items))]
    paths, start = [], 0
    for number, count in enumerate(counts):
        paths.append(shard(folder / "items-*.parquet", number=number, of=len(counts)))
        rows = slice(start, start + count)
        write_vectors(paths[-1], ids[rows], catalogue.items[rows], id_column="item_id")
        start += count
    return ids, paths


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_shards_joined_are_the_catalogue_in_its_order(tmp_path, monkeypatch, devices):
    monkeypatch.setattr(assign_module, "ROWS", 7)
    shared = make_quantizer()
    codes, distances, error = assign_module.assign_catalogue(**shared)
    catalogue = shared.pop("catalogue")
    ids, vectors = write_shards(tmp_path, catalogue, [20, 0, 7, 23])
    paths = assign_module.assign_shards(
        **shared,
        vectors=vectors,
        pattern=tmp_path / "sids-*.parquet",
        version="v1",
        pinned=catalogue.pinned,
        devices=jax.devices()[:devices],
    )
    assign_module.join_shards(paths, into=tmp_path / "sids.parquet")
    table = read_sids(tmp_path / "sids.parquet")
    assert (table.item_ids.to_pylist(), table.version) == (ids, "v1")
    np.testing.assert_array_equal(table.sids, codes)
    np.testing.assert_allclose(table.distances, distances, rtol=1e-5, atol=1e-6)
    assert np.mean(table.errors) / assign_module.variance(catalogue.items) == pytest.approx(error)
    assert not list(tmp_path.glob("sids-*"))


def test_a_finished_shard_is_kept_unless_it_is_of_another_version(tmp_path):
    shared = make_quantizer()
    catalogue = shared.pop("catalogue")
    _, vectors = write_shards(tmp_path, catalogue, [20, 30])
    shared |= {"vectors": vectors, "pattern": tmp_path / "sids-*.parquet"}
    first, second = assign_module.assign_shards(**shared, version="v1")
    before = first.stat().st_mtime_ns, pq.read_table(second)
    second.unlink()
    assign_module.assign_shards(**shared, version="v1")
    assert (first.stat().st_mtime_ns, pq.read_table(second)) == before
    assign_module.assign_shards(**shared, version="v2")
    assert first.stat().st_mtime_ns != before[0]
    assert pq.read_schema(first).metadata[b"sid_version"] == b"v2"


def test_a_vector_that_is_not_finite_is_named_and_leaves_no_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(assign_module, "ROWS", 7)
    shared = make_quantizer()
    catalogue = shared.pop("catalogue")
    catalogue.items[12] = np.inf
    _, vectors = write_shards(tmp_path, catalogue, [50])
    with pytest.raises(InputError, match=r"items-00000-of-00001.* row 13: .* has inf"):
        assign_module.assign_shards(
            **shared, vectors=vectors, pattern=tmp_path / "sids-*.parquet", version="v1"
        )
    assert not list(tmp_path.glob("sids-*"))
