"""Weights and settings of a Hugging Face folder, as they are in its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from dsirm_jax.io.errors import InputError

CONFIG = "config.json"


def read_json(path: Path) -> Any:
    """Returns the value in a file.

    Raises:
      InputError: there is no such file, or it has no JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no such file, or no JSON; give a model's folder") from error


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a folder's weights, of one file or of several, as float32.

    Args:
      folder: with `model.safetensors`, or its shards and `model.safetensors.index.json`.

    Raises:
      InputError: a file is missing or damaged, or a number of a tensor is not finite.
    """
    from safetensors.flax import load_file

    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        try:
            files = sorted({folder / name for name in read_json(index)["weight_map"].values()})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index}: no weight_map; fetch it again") from error
    elif single.is_file():
        files = [single]
    else:
        raise InputError(
            f"{folder}: no model.safetensors; save the model with safe_serialization=True (other "
            f"formats are pickles, which are never read)"
        )
    arrays: dict[str, np.ndarray] = {}
    for file in files:
        try:
            # By way of JAX, which has bfloat16.
            found = {name: np.asarray(array, np.float32) for name, array in load_file(file).items()}
        except (OSError, safetensors.SafetensorError) as error:
            raise InputError(f"{file}: cannot be read ({error}); fetch it again") from error
        for name, array in found.items():
            if not np.isfinite(array).all():
                raise InputError(
                    f"{file}: tensor {name} has {np.sum(~np.isfinite(array))} numbers that are not "
                    f"finite; fetch it again"
                )
        arrays |= found
    return arrays
