"""Input files on a local disk, or anywhere that fsspec reaches: gs://, s3://, https://, memory://."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from dsirm_jax.io.errors import InputError


def list_files(patterns: str | Sequence[str]) -> list[str]:
    """Returns the files of some patterns, each once, in order.

    Args:
      patterns: paths or URLs, each perhaps with wildcards.

    Raises:
      InputError: one of them has no file.
    """
    files: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        files |= dict.fromkeys(_matches(pattern) or [require_file(pattern)])
    return list(files)


def _matches(pattern: str) -> list[str]:
    if not glob.has_magic(pattern):
        return []
    if not _is_remote(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    with _naming_file(pattern):
        system, path = _filesystem(pattern)
        return [system.unstrip_protocol(match) for match in sorted(system.glob(path))]


def require_file(file: str) -> str:
    """Returns the name of a file that exists and is not empty.

    Raises:
      InputError: there is none, or it is empty.
    """
    _size(file)
    return file


def version(file: str) -> list[Any]:
    """Returns size and time of change, or what a remote store gives instead, as JSON values.

    It differs when the contents do, as far as the store knows; of a web server, only by size.

    Raises:
      InputError: there is no such file.
    """
    size = _size(file)
    if not _is_remote(file):
        return [size, Path(file).stat().st_mtime_ns]
    with _naming_file(file):
        system, path = _filesystem(file)
        return [size, system.ukey(path)]


def files_below(path: str) -> list[str]:
    """Returns the files of a folder in order, those of its folders too; of a file, the file."""
    if _is_remote(path) or not Path(path).is_dir():
        return [path]
    return sorted(str(file) for file in Path(path).rglob("*") if file.is_file())


def open_file(file: str) -> pa.NativeFile | BinaryIO:
    """Opens a file as it is, for reading at any place."""
    # To fetch the bytes that follow would be in vain.
    return _open(file, cache_type="none")


def stream(file: str) -> pa.NativeFile:
    """Opens a file for reading from start to end; the contents of one called .gz are unpacked."""
    return pa.input_stream(_open(file), compression="gzip" if file.endswith(".gz") else None)


def _open(file: str, **options: str) -> pa.NativeFile | BinaryIO:
    if not _is_remote(file):
        return pa.OSFile(file)
    with _naming_file(file):
        system, path = _filesystem(file)
        return system.open(path, "rb", **options)


def _is_remote(file: str) -> bool:
    return "://" in file


def _size(file: str) -> int | None:
    """Returns the size in bytes, where the store knows it."""
    if _is_remote(file):
        with _naming_file(file):
            system, remote = _filesystem(file)
            information = system.info(remote)
        is_file, size = information["type"] == "file", information.get("size")
    else:
        path = Path(file)
        is_file = path.is_file()
        size = path.stat().st_size if is_file else None
    if not is_file:
        raise InputError(f"{file}: no such file; bind the path of an existing one")
    if size == 0:
        raise InputError(f"{file}: the file is empty")
    return size


def _filesystem(file: str) -> tuple[Any, str]:
    import fsspec

    return fsspec.url_to_fs(file)


@contextlib.contextmanager
def _naming_file(file: str) -> Iterator[None]:
    """Names the file in the error of a store.

    Every store fails with errors of its own: no credentials, a time-out, a package to install.
    """
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; bind the path of an existing one") from None
    except Exception as error:
        raise InputError(f"{file}: cannot be reached: {' '.join(str(error).split())}") from error
