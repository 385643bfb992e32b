import dataclasses
import shutil

import numpy as np
import pytest

from dsirm_jax.io.checksums import checksums
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.bundle.contents import MANIFEST, open_bundle, seal_bundle
from dsirm_jax.serving.bundle.manifest import CARD, FULL
from tests.serving import tiny


def test_a_bundle_is_whole_wherever_it_is_copied(made, tmp_path):
    shutil.copytree(made, tmp_path / "elsewhere")
    before, after = open_bundle(made), open_bundle(tmp_path / "elsewhere")
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
            if name != MANIFEST:
                open_bundle(path, trust=True)
            with pytest.raises(InputError, match=f"{name} is not what was written"):
                open_bundle(path)
            (path / name).write_bytes(whole[: len(whole) // 2])
            with pytest.raises(InputError, match=f"{path / name}"):
                open_bundle(path, trust=True)
        (path / name).unlink()
        with pytest.raises(InputError, match=f"{path / name}( is missing|: no such file)"):
            open_bundle(path, trust=True)
        (path / name).write_bytes(whole)
    open_bundle(path)


def test_a_file_that_nobody_wrote_is_named_in_the_folders_that_are_sealed_alone(made, tmp_path):
    path = shutil.copytree(made, tmp_path / "bundle")
    for name in ("update.lock", "manifest.json.partial-host-1", "catalogue-0002/x", "README"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).touch()
    (path / "saved_model/partial-2").mkdir()
    open_bundle(path)
    for name in ("model/x", "model/parameters/y/z", "saved_model/1/x", "catalogue-0001/digests/x"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).touch()
        with pytest.raises(InputError, match=f"^{path / name} is none of the files that were writ"):
            open_bundle(path, trust=True)
        (path / name).unlink()


def test_a_card_is_sealed_where_the_manifest_names_it_alone(made, tmp_path):
    path = shutil.copytree(made, tmp_path / "bundle")
    (path / CARD).write_text("somebody's own\n")
    open_bundle(path)
    seal_bundle(path, open_bundle(path).manifest)
    assert CARD not in open_bundle(path).manifest.files
    named = dataclasses.replace(open_bundle(path).manifest, files=checksums(path, [CARD]))
    seal_bundle(path, named)
    assert open_bundle(path).manifest.files.keys() - open_bundle(made).manifest.files == {CARD}
    (path / CARD).write_text("somebody else's\n")
    with pytest.raises(InputError, match=f"^{path / CARD} has 16 bytes in place of 15"):
        open_bundle(path)
    (path / CARD).rename(tmp_path / CARD)
    with pytest.raises(InputError, match=f"^{path / CARD} is missing"):
        open_bundle(path)
    (path / CARD).symlink_to(tmp_path / CARD)
    with pytest.raises(InputError, match=f"^{path / CARD} is a symbolic link; copy the bundle"):
        open_bundle(path)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("manifest.json", id="manifest"),
        pytest.param("catalogue-0001/sids.npy", id="file"),
        pytest.param("catalogue-0001/digests", id="folder"),
        pytest.param("saved_model", id="folder of folders"),
        pytest.param("model", id="sealed folder"),
    ],
)
def test_a_symbolic_link_among_its_files_is_named(made, tmp_path, name):
    path = shutil.copytree(made, tmp_path / "bundle")
    (path / name).rename(tmp_path / "elsewhere")
    (path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"^{path / name} is a symbolic link; copy the bundle"):
        open_bundle(path, trust=True)


def test_the_folder_of_a_bundle_may_be_reached_by_a_link(made, tmp_path):
    (tmp_path / "link").symlink_to(made)
    assert open_bundle(tmp_path / "link").manifest == open_bundle(made).manifest


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
