"""A bit that flips, or an end that is lost, anywhere in a finished run is noticed, and named."""

import os
import shutil

import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.run import configuration
from dsirm_jax.run.job import Job, check_agreement
from dsirm_jax.run.record import check_lineage
from dsirm_jax.stages import STAGES
from dsirm_jax.training import checkpoints
from tests.faults.tiny import places

FLIPS = int(os.environ.get("FLIPS", "400"))
"""The long form has 1,600."""

CUTS = FLIPS // 10


def files_of(model_dir):
    """Returns the files that a stage or a checkpoint has sealed, and the records themselves."""
    relative = {
        path.relative_to(model_dir): path for path in model_dir.rglob("*") if path.is_file()
    }
    return {
        str(name): path
        for name, path in relative.items()
        if "logs" not in name.parts
        and name.parts[0] not in ("locks", "processes", "replaced")
        # Orbax's own notes beside the items of a step, which nothing reads.
        and ("checkpoints" not in name.parts or len(name.parts) > 4 or name.name == "SHA256SUMS")
    }


def noticed(model_dir, name, caplog):
    """Returns what is said of a damaged file by whoever reads it next, None where nothing is."""
    path = model_dir / name
    if "checkpoints" in path.parts:
        step = model_dir.joinpath(*path.relative_to(model_dir).parts[:3])
        reason = checkpoints.step_damage(step)
        return reason and f"{step} is damaged ({reason})"
    caplog.clear()
    try:
        if name == "config.gin":
            configuration.parse(files=[str(path)], bindings=[f"MODEL_DIR = '{model_dir}'"])
            check_agreement(configuration.call_with_bound(Job), STAGES)
            return caplog.text
        check_lineage([model_dir / "report", model_dir / "relevance"], trust=False)
    except InputError as error:
        return str(error)
    return None


@pytest.mark.slow
def test_whatever_is_damaged_is_noticed_and_named(run, tmp_path, caplog):
    model_dir, _ = run
    of_readers = shutil.ignore_patterns("predict", "score", "assign", "export")
    model_dir = shutil.copytree(model_dir, tmp_path / "run", ignore=of_readers)
    files = files_of(model_dir)
    sizes = {name: path.stat().st_size for name, path in files.items()}
    kinds = {path.suffix for path in files.values()}
    assert kinds >= {".parquet", ".safetensors", ".json", ".gin", ".model", ".html"}
    generator = np.random.default_rng(0)
    unnoticed = []
    for number, (name, place) in enumerate(places(sizes, number=FLIPS + CUTS, generator=generator)):
        path = files[name]
        contents, state = path.read_bytes(), path.stat()
        if number < FLIPS:
            bit = 1 << int(generator.integers(8))
            damaged = contents[:place] + bytes([contents[place] ^ bit]) + contents[place + 1 :]
        else:
            damaged = contents[:place]
        path.write_bytes(damaged)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        said = noticed(model_dir, name, caplog)
        if not said or (name.split("/")[0] not in said and name != "config.gin"):
            unnoticed.append((name, place, said))
        path.write_bytes(contents)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert unnoticed == []
    check_lineage([model_dir / "report"], trust=False)
    print(f"{FLIPS} flips and {CUTS} cuts in {len(files)} files: all noticed")
