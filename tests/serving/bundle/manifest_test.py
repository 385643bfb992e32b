import dataclasses
import functools
import json
import operator
import re

import pytest

from dsirm_jax.io.checksums import SEAL, sealed
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.bundle import manifest
from dsirm_jax.serving.bundle.contents import MANIFEST, open_bundle


def changed(made, folder, **changes):
    """Writes a bundle's manifest with other contents, sealed as if they were right."""
    content = json.loads((made / MANIFEST).read_text()) | changes
    del content[SEAL]
    (folder / MANIFEST).write_text(json.dumps(sealed(content), indent=2) + "\n")
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
    path.write_text(json.dumps(sealed(content), indent=2) + "\n")
    assert manifest.read_manifest(path).programs is None


def test_queries_are_shown_only_where_the_manifest_says_so(made, tmp_path):
    settings = json.loads((made / MANIFEST).read_text())["settings"]
    assert manifest.read_manifest(made / MANIFEST).settings.shows_queries
    del settings["shows_queries"]  # as earlier versions wrote it
    path = changed(made, tmp_path, settings=settings)
    assert not manifest.read_manifest(path).settings.shows_queries


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


HEX = "0" * 64
FILE = {"bytes": 1, "sha256": HEX}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("../outside", id="parent"),
        pytest.param("model/../../outside", id="parent within"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("model//x", id="empty part"),
        pytest.param("model/./x", id="dot"),
        pytest.param("model\\..\\x", id="backslash"),
        pytest.param("model/\0", id="NUL"),
        pytest.param("model/\ud800", id="no Unicode"),
        pytest.param("model/a\nb", id="line feed"),
        pytest.param("", id="empty"),
        pytest.param("model", id="folder"),
        pytest.param("catalogue-0002/x", id="another catalogue"),
        pytest.param("manifest.json", id="manifest"),
    ],
)
def test_a_path_that_leads_elsewhere_than_into_the_bundle_is_refused(made, tmp_path, name):
    path = changed(made, tmp_path, files={name: FILE})
    with pytest.raises(InputError, match=f"^{path}: Manifest.files has .*, which is no file"):
        manifest.read_manifest(path)


def test_more_files_than_any_bundle_has_are_refused(made, tmp_path):
    files = {f"model/{number}": FILE for number in range(100_001)}
    path = changed(made, tmp_path, files=files)
    with pytest.raises(InputError, match=f"^{path}: Manifest.files has 100,001, more than any"):
        manifest.read_manifest(path)


WRONG = {dict: "x", list: "x", str: 1, int: "1", bool: 1, type(None): 1}
MAPPINGS = {"packages", "stages", "files", "features", "groups", "extras"}
OPTIONAL = {"prompt", "programs", "module", "max_query_pieces", "max_item_pieces"}
OPTIONAL |= {"query_prefix", "item_prefix", "shows_queries"}
OPTIONAL |= {"identity", "punctuation", "word_order", "own_vocabulary"}
OPTIONAL |= {"item_text", "attributes", "title_language"}


def places(content, *above):
    """Yields the way to every value of a manifest; what architectures are made of is their own."""
    for key in content if isinstance(content, dict) else range(len(content)):
        yield (*above, key)
        if isinstance(content[key], dict | list) and key not in ("generator", "module"):
            yield from places(content[key], *above, key)


def test_every_field_of_another_type_or_missing_is_named_with_the_file(made, tmp_path):
    whole = json.loads((made / MANIFEST).read_text())
    del whole[SEAL]
    whole["features"]["full"] = whole["features"]["full"][:1]
    whole["files"] = dict([*whole["files"].items()][:2])
    tried = 0
    for *above, last in places(whole):
        for is_missing in (False, True):
            if is_missing and (
                isinstance(last, int) or last in OPTIONAL or {*above[-1:]} & MAPPINGS
            ):
                continue  # a bundle can be without
            content = json.loads(json.dumps(whole))
            place = functools.reduce(operator.getitem, above, content)
            if is_missing:
                del place[last]
            else:
                place[last] = WRONG[type(place[last])]
            path = tmp_path / MANIFEST
            path.write_text(json.dumps(sealed(content), indent=2) + "\n")
            with pytest.raises(InputError, match=f"^{path}: .*{re.escape(str(last))}.*anew"):
                manifest.read_manifest(path)
                pytest.fail(f"{[*above, last]} was read")
            tried += 1
    assert tried > 200


@pytest.mark.parametrize(
    "above", [(), ("settings",), ("settings", "encoder"), ("programs",)], ids=str
)
def test_an_unknown_field_is_named_with_the_file(made, tmp_path, above):
    content = json.loads((made / MANIFEST).read_text())
    functools.reduce(operator.getitem, above, content)["more"] = 1
    path = changed(made, tmp_path, **content)
    where = ".".join(["the manifest", *above])
    with pytest.raises(InputError, match=f"^{path}: {where} has 'more', which is no field of it"):
        manifest.read_manifest(path)


def test_a_manifest_that_is_written_otherwise_is_not_what_was_written(made, tmp_path):
    path = tmp_path / MANIFEST
    text = (made / MANIFEST).read_text()
    assert '"bytes"' in text
    for other in (
        text.replace('"bytes"', '"\\u0062ytes"'),
        text + " ",
        text.replace(" 1", "  1", 1),
    ):
        path.write_text(other)
        with pytest.raises(InputError, match="^.*manifest.json is not what was written; copy"):
            manifest.read_manifest(path)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("[]", id="list"),
        pytest.param("{}", id="no seal"),
        pytest.param("[" * 100_000, id="nested"),
        pytest.param('{"checksum": ' + "9" * 5000 + "}", id="long number"),
        pytest.param('{"checksum": NaN, "files": Infinity}', id="NaN"),
        pytest.param("\x00\xff", id="bytes"),
    ],
)
def test_what_is_no_manifest_is_named(tmp_path, text):
    path = tmp_path / MANIFEST
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=f"^{path} is not what was written; copy the bundle again"):
        manifest.read_manifest(path)
