import dataclasses
import json

import pytest

from dsirm_jax.io.checksums import SEAL, sealed
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.bundle import manifest
from dsirm_jax.serving.bundle.contents import MANIFEST, open_bundle


def changed(made, folder, **changes):
    """Writes a bundle's manifest with other contents, sealed as if they were right."""
    content = json.loads((made / MANIFEST).read_text()) | changes
    del content[SEAL]
    (folder / MANIFEST).write_text(json.dumps(sealed(content)))
    return folder / MANIFEST


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beams": 0}, "beams is 0; give a whole number of at least 1"),
        ({"max_pieces": 1.5}, "max_pieces is 1.5; give a whole number"),
        ({"groups": {"dense_only": ("dense",)}}, "groups has no 'full'"),
        ({"numbers": ("price", "weight")}, "numbers has 'weight', which is no column"),
        ({"trie": ("bitmap",)}, "trie has 1 forms; give one for each of the 3 levels"),
    ],
    ids=["beams", "max_pieces", "groups", "numbers", "trie"],
)
def test_settings_that_no_bundle_can_have_are_refused_by_their_name(made, changes, message):
    settings = open_bundle(made).manifest.settings
    with pytest.raises(InputError, match=rf"BundleSettings\.{message}"):
        dataclasses.replace(settings, **changes)


def test_a_bundle_of_another_format_is_refused(made, tmp_path):
    changed(made, tmp_path, format=99)
    with pytest.raises(InputError, match="has format 99, this version of dsirm reads 1 to 2; upgr"):
        open_bundle(tmp_path)


def test_a_bundle_of_format_1_is_read(made, tmp_path):
    path = changed(made, tmp_path, format=1)
    content = json.loads(path.read_text())
    del content["programs"], content[SEAL]
    path.write_text(json.dumps(sealed(content)))
    assert manifest.read_manifest(path).programs is None


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"stablehlo": "99.0.0"}, r"reads up to \d+.\d+.\d+ and \d+: upgrade jax here to 7.5.3$"),
        ({"calling_convention": 99}, r"upgrade jax here to 7.5.3$"),
        ({"stablehlo": "0.1.0"}, r"reads from 0.9.0 and 9 on: export the bundle anew with it$"),
        ({"calling_convention": 1}, r"on: export the bundle anew with it$"),
    ],
    ids=["newer_stablehlo", "newer_convention", "older_stablehlo", "older_convention"],
)
def test_the_side_to_upgrade_is_named_where_jax_cannot_read_the_programs(
    made, tmp_path, changes, fix
):
    programs = {"jax": "7.5.3", "stablehlo": "1.8.0", "calling_convention": 10} | changes
    path = changed(made, tmp_path, programs=programs)
    with pytest.raises(InputError, match=f"^{path}: its programs, StableHLO .*{fix}"):
        manifest.read_manifest(path)
