"""Where a gin file comes from: written by the user, or the `config.gin` of a run or bundle."""

from __future__ import annotations

import json
import os
from pathlib import Path

from dsirm_jax.run.layout import CONFIG
from dsirm_jax.run.record import RECORD


def is_of_run(path: Path) -> bool:
    """Returns whether a gin file is that of a run or bundle, and not one that the user wrote.

    Args:
      path: a `config.gin` beside the record of a stage or the folders of stages, or any file in a
        bundle.
    """
    # A link is judged by what it leads to as well as by its name.
    paths = (path.absolute(), path.resolve())
    return any(model_dir(each) is not None or _is_in_bundle(each) for each in paths)


def model_dir(path: Path) -> Path | None:
    """Returns the MODEL_DIR of a run by its `config.gin`; None where that is another file.

    Args:
      path: `MODEL_DIR/config.gin`, or that in the folder of a stage.

    Returns:
      The folder, relative where `path` is.
    """
    folder = path.parent
    if path.name != CONFIG:
        return None
    if any(folder.glob(f"*/{RECORD}")):
        return folder
    if (folder / RECORD).is_file():
        return Path(os.path.normpath(folder.joinpath(*[".."] * _depth(folder / RECORD))))
    return None


def _depth(record: Path) -> int:
    """Returns how many folders below MODEL_DIR a stage lies, such as `ablation/RUNG/quantize`."""
    try:
        return len(Path(json.loads(record.read_text("utf-8"))["stage"]).parts)
    except (ValueError, KeyError, TypeError):
        return 1


def _is_in_bundle(path: Path) -> bool:
    return any(
        (folder / "manifest.json").is_file() and any(folder.glob("catalogue-*"))
        for folder in path.parents
    )
