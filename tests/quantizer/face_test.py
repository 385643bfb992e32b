"""What `from dsirm_jax import quantizer` gives."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dsirm_jax import quantizer
from dsirm_jax.quantizer.kinds.rq_vae import RqVae


def test_the_example_of_the_documentation_runs(tmp_path):
    text = Path("docs/quantizer.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names = {}
    exec(example.replace("quantizer.safetensors", str(tmp_path / "q.safetensors")), names)
    codes, health = names["sids"].codes, names["health"]
    assert codes.shape == (2000, 2) and codes.min() == 0 and codes.max() == 15
    assert health["unique_sids"] == len(np.unique(codes, axis=0))
    read = quantizer.load(tmp_path / "q.safetensors")
    again = quantizer.assign_vectors(fitted=read, vectors=names["vectors"])
    np.testing.assert_array_equal(again.codes, codes)


def test_every_name_is_there_and_no_other():
    names = [name for name in dir(quantizer) if not name.startswith("_")]
    assert {"train", "TrainingItems", "assign_vectors", "codebook_health"} <= set(names)
    assert all(getattr(quantizer, name) is not None for name in names)
    assert quantizer.RqVae is RqVae
    for missing in ("Nothing", "nothing", "__path_hooks__"):
        with pytest.raises(AttributeError, match=missing):
            getattr(quantizer, missing)


def test_the_package_imports_nothing_heavy():
    program = (
        "import sys; from dsirm_jax import quantizer; print({'jax', 'numpy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
