import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_gin_files_are_found_from_an_installed_wheel(tmp_path):
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--wheel-dir", tmp_path, "."),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    for file in Path("gin").rglob("*.gin"):
        assert f"dsirm_jax/{file}" in names
    assert {"dsirm_jax/report/page.html", "dsirm_jax/report/page.js"} <= set(names)
    assert {f"dsirm_jax/serving/explorer/{name}" for name in ("index.html", "main.js")} <= set(
        names
    )
    done = subprocess.run(
        [sys.executable, "-m", "dsirm_jax", "run", "--gin_file=gin/runs/demo.gin"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "gin value MODEL_DIR is REQUIRED" in done.stderr
