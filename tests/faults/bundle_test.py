"""Damage to a bundle is noticed before anything is served of it."""

import collections
import random
import shutil

import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.bundle.contents import open_bundle
from tests.serving import tiny

FLIPS = 200


@pytest.mark.slow
def test_any_bit_that_flips_in_any_file_is_noticed(tmp_path):
    """Half of the bits are drawn of all bits, half of a file that was drawn first."""
    whole = tiny.make(tmp_path / "bundle", whole=True)
    path, chance = shutil.copytree(whole, tmp_path / "copy"), random.Random(0)
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.stat().st_size]
    sizes = [file.stat().st_size for file in files]
    flipped: collections.Counter[str] = collections.Counter()
    for number in range(FLIPS):
        (file,) = chance.choices(files, sizes if number % 2 else None)
        place, bit = chance.randrange(file.stat().st_size), chance.randrange(8)
        before = file.read_bytes()
        damaged = bytearray(before)
        damaged[place] ^= 1 << bit
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=f"^{file}( is not what was written|: )"):
            open_bundle(path)
            pytest.fail(f"bit {bit} of byte {place} of {file} was not noticed")
        file.write_bytes(before)
        flipped[file.name] += 1
    open_bundle(path)
    assert sum(flipped.values()) == FLIPS and len(flipped) > 30
