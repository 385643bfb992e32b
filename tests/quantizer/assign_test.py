import jax
import numpy as np

from dsirm_jax.quantizer import assign as assign_module
from dsirm_jax.quantizer.model import Autoencoder, Codebook
from dsirm_jax.quantizer.train import Catalogue


def test_chunks_of_any_size_give_the_codes_of_one_pass(monkeypatch):
    rng = np.random.default_rng(0)
    model = Autoencoder(dim=6, latent_dim=4, hidden_dim=8)
    catalogue = Catalogue(
        items=rng.normal(size=(50, 6)).astype("f4"),
        queries=np.zeros((1, 6), "f4"),
        pairs=np.zeros((0, 2), np.int64),
        pinned=rng.integers(-1, 5, 50).astype(np.int32),
    )
    params = model.init(jax.random.key(0), catalogue.items)
    books = tuple(
        Codebook(codewords=words, count=np.ones(5, "f4"), total=words)
        for words in rng.normal(size=(3, 5, 4)).astype("f4")
    )
    shared = {"model": model, "params": params, "codebooks": books, "catalogue": catalogue}
    codes, distances, error = assign_module.assign_catalogue(**shared)
    monkeypatch.setattr(assign_module, "ROWS", 7)
    by_seven = assign_module.assign_catalogue(**shared)
    np.testing.assert_array_equal(codes, by_seven[0])
    np.testing.assert_allclose(distances, by_seven[1], rtol=1e-5)
    known = catalogue.pinned >= 0
    np.testing.assert_array_equal(codes[known, 0], catalogue.pinned[known])
    assert error > 0


def test_the_version_changes_with_codewords_and_with_what_codes_are_pinned_to():
    words = np.eye(2, dtype="f4")
    book = Codebook(codewords=words, count=np.ones(2), total=words)
    version = assign_module.sid_version((book,), ("shoes",))
    assert version == assign_module.sid_version((book.replace(count=np.zeros(2)),), ("shoes",))
    assert version != assign_module.sid_version((book.replace(codewords=words + 1),), ("shoes",))
    assert version != assign_module.sid_version((book,), ("boots",))
