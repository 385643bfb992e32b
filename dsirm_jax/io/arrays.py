"""Named arrays and a description of them in one `safetensors` file."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from dsirm_jax.io import disk
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing

DTYPES = {
    "U8": np.uint8,
    "U16": np.uint16,
    "U32": np.uint32,
    "I32": np.int32,
    "I64": np.int64,
    "F32": np.float32,
    "F64": np.float64,
}


def save(
    path: str | os.PathLike[str], arrays: Mapping[str, Any], *, kind: str, description: Any
) -> None:
    """Writes arrays as one file, whole or not at all.

    Args:
      path: where to.
      arrays: by name, on the host or on a device.
      kind: what they are, which `load` asks for.
      description: a JSON value that goes into the header.
    """
    contents = safetensors.numpy.save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        metadata={kind: json.dumps(description)},
    )
    with replacing(path) as partial:
        # Not by save_file, which lets nobody else read the file.
        partial.write_bytes(contents)


def load(
    path: str | os.PathLike[str], *, kind: str, otherwise: str, mapped: bool = False
) -> tuple[dict[str, np.ndarray], Any]:
    """Reads what `save` wrote.

    Args:
      path: the file.
      kind: what has to be in it.
      otherwise: message, after the path, where that is not so.
      mapped: maps the arrays into memory, read-only, and does not read them.

    Returns:
      The arrays by name, and their description.

    Raises:
      InputError: there is no such file, it is not whole, or it is of another kind.
    """
    try:
        with safetensors.safe_open(path, "np") as file:  # compares lengths, shapes and types
            description = json.loads((file.metadata() or {})[kind])
            names = file.offset_keys()
            arrays = {} if mapped else {name: file.get_tensor(name) for name in names}
        return (_mapped(Path(path)) if mapped else arrays), description
    except Exception as error:  # a hostile header raises whatever comes
        raise InputError(f"{path}: {otherwise}") from error


def finite(array: np.ndarray, *, name: str, file: Path) -> np.ndarray:
    """Returns an array of weights from elsewhere, which may be anything.

    Args:
      array: the array.
      name: what messages call it.
      file: that has it.

    Raises:
      InputError: a number of it is not finite.
    """
    is_finite = np.isfinite(array)
    if not is_finite.all():
        raise InputError(
            f"{file}: {name} has {np.sum(~is_finite)} numbers that are not finite; fetch it again"
        )
    return array


def scratch(shape: tuple[int, ...], dtype: Any, *, folder: Path) -> np.ndarray:
    """Returns zeros, mapped from a temporary file that goes when the array does.

    Args:
      shape: of the array.
      dtype: its type.
      folder: that the file lies in, unnamed.

    Raises:
      StorageError: there is no room. It is taken here, for a page that the disk has no room for
        would end the process as it is written.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not size:
        return np.zeros(shape, dtype)
    with disk.writing(folder), tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            _write_zeros(file, size)
        return np.memmap(file, dtype, "r+", shape=shape)


def _write_zeros(file: Any, size: int) -> None:
    """Takes room on a file system that only gives it to what is written."""
    block = bytes(1 << 20)
    for begin in range(0, size, len(block)):
        file.write(block[: size - begin])
    file.flush()


def _mapped(path: Path) -> dict[str, np.ndarray]:
    """Maps the arrays of a file, whose header gives their places behind it."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    del header["__metadata__"]
    return {
        name: np.memmap(
            path,
            mode="r",
            dtype=DTYPES[of["dtype"]],
            offset=8 + length + of["data_offsets"][0],
            shape=tuple(of["shape"]),
        )
        for name, of in header.items()
    }
