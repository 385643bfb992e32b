import json
import shutil

import pytest

from dsirm_jax.errors import InputError
from dsirm_jax.serving import manifest
from dsirm_jax.serving.bundle import MANIFEST, open_bundle


def test_a_bundle_of_another_format_is_refused(made, tmp_path):
    shutil.copyfile(made / MANIFEST, tmp_path / MANIFEST)
    content = json.loads((tmp_path / MANIFEST).read_text())
    del content["checksum"]
    content["format"] = 99
    sealed = {"checksum": manifest._checksum(content)} | content
    (tmp_path / MANIFEST).write_text(json.dumps(sealed))
    with pytest.raises(InputError, match="the bundle has format 99, this version of dsirm reads 1"):
        open_bundle(tmp_path)
