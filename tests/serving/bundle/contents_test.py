import shutil

import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.bundle.contents import MANIFEST, open_bundle
from dsirm_jax.serving.bundle.manifest import FULL
from tests.serving import tiny


def test_a_bundle_is_whole_wherever_it_is_copied(made, tmp_path):
    shutil.copytree(made, tmp_path / "elsewhere")
    before, after = open_bundle(made), open_bundle(tmp_path / "elsewhere", verify=True)
    assert after.manifest == before.manifest
    assert after.manifest.sizes == tiny.SIZES
    folders = {name.split("/")[0] for name in after.manifest.files}
    assert folders == {"model", "saved_model", "catalogue-0001"}


def test_any_file_that_is_truncated_flipped_or_missing_is_named(made, tmp_path):
    path = tmp_path / "bundle"
    shutil.copytree(made, path)
    names = [*open_bundle(path).manifest.files, MANIFEST]
    assert len(names) > 15
    for name in names:
        whole = (path / name).read_bytes()
        flipped = bytearray(whole)
        if whole:
            flipped[len(whole) // 2] ^= 4
            (path / name).write_bytes(flipped)
            with pytest.raises(InputError, match=f"{name} is not what was written"):
                open_bundle(path, verify=True)
            (path / name).write_bytes(whole[: len(whole) // 2])
            with pytest.raises(InputError, match=f"{path / name}"):
                open_bundle(path)
        (path / name).unlink()
        with pytest.raises(InputError, match=f"{path / name}( is missing|: no such file)"):
            open_bundle(path)
        (path / name).write_bytes(whole)
    open_bundle(path, verify=True)


def test_the_models_of_a_bundle_are_those_that_went_in(made):
    found = open_bundle(made).models
    expected = tiny.untrained(found.vocabulary)
    for name in ("generator", "heads"):
        of = getattr(found, name), getattr(expected, name)
        versions = [v.version if name == "generator" else v[FULL].version for v in of]
        assert versions[0] == versions[1]
    texts = np.array([[5, 6, 7, 0], [9, 0, 0, 0]], np.int32)
    vectors = [m.encoder.module.apply(m.encoder.params, texts) for m in (found, expected)]
    np.testing.assert_array_equal(*vectors)
