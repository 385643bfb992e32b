"""Which sizes are advised where too many items share their SID."""

from __future__ import annotations

import numpy as np
import pytest

from dsirm_jax.quantizer.health import crowded, roomier


@pytest.mark.parametrize(
    ("sizes", "shared", "pinned", "advised"),
    [
        # -ln .44 / -ln .7 = 2.302; its square root 1.517: 194.2 codes
        pytest.param((128, 128, 128), 0.56, True, (128, 224, 224), id="pinned"),
        # its cube root 1.320: 169.0 codes
        pytest.param((128, 128, 128), 0.56, False, (192, 192, 192), id="free"),
        pytest.param((32,), 0.56, True, (96,), id="one level"),
        # -ln .001 / -ln .7 = 19.37
        pytest.param((8, 8), 1.0, True, (8, 160), id="all share"),
    ],
)
def test_sizes_by_hand(sizes, shared, pinned, advised):
    assert roomier(sizes, shared=shared, pinned=pinned) == advised


def test_even_codes_of_the_advised_sizes_are_shared_by_some_30_percent():
    random, items = np.random.default_rng(0), 20_000

    def shared(sizes):
        codes = random.integers(np.prod(sizes), size=items)
        _, place, counts = np.unique(codes, return_inverse=True, return_counts=True)
        return float(np.mean(counts[place] > 1))

    before = shared((64, 16, 16))
    assert before > 0.6
    after = shared(roomier((64, 16, 16), shared=before, pinned=False))
    assert 0.1 < after <= 0.31  # sizes are rounded up


def test_a_hint_names_sizes_and_what_is_seen():
    health = {"collision_rate": 0.56, "items": 54667, "largest_bucket": 145}
    hint = crowded(health, sizes=(128, 128, 128), pinned=True)
    assert hint.startswith("56% of 54,667 items share their SID with another, in buckets of up to")
    assert "bind QuantizerConfig.codebook_sizes = (128, 224, 224)" in hint
    assert crowded(health | {"collision_rate": 0.3}, sizes=(128,), pinned=True) is None
