"""Input files on a local disk, or anywhere that fsspec reaches: gs://, s3://, https://, memory://.

A URL may refer to environment variables, `https://host/items.csv?sig=${SIG}`; it keeps its
references wherever its name goes, and only the store is given their values.
"""

from __future__ import annotations

import contextlib
import glob
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from dsirm_jax.io.checksums import checksum
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.secrets import check_public, erased, public_url, referring, resolved, secrets_of


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
    # Behind the question mark of a web server are settings.
    if not glob.has_magic(pattern.partition("?")[0] if _has_settings(pattern) else pattern):
        return []
    if not _is_remote(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    with _naming_file(pattern):
        system, path = _filesystem(pattern)
        files = [system.unstrip_protocol(match) for match in sorted(system.glob(path))]
    files = [referring(file, like=pattern) for file in files]
    secrets = [secret for secret in secrets_of(pattern) if secret not in pattern]
    if any(secret in file for file in files for secret in secrets):
        raise InputError(f"{pattern}: its files cannot be named without secrets; name each of them")
    return files


def require_file(file: str) -> str:
    """Returns the name of a file that exists and is not empty.

    Raises:
      InputError: there is none, or it is empty.
    """
    _size(file)
    return file


def name(file: str) -> str:
    """Returns the path of a file within its store, whose suffix says what it is.

    Example:
      >>> name("simplecache::https://host/items.csv.gz?sig=${SIG}")
      'https://host/items.csv.gz'
    """
    if not _is_remote(file):
        return file
    link = next(link for link in file.split("::") if "://" in link)
    return re.split(r"[?#]", link, maxsplit=1)[0] if _has_settings(link) else link


def version(file: str) -> Any:
    """Returns what differs when the contents of a file do, as a JSON value.

    Returns:
      Of a local file the SHA-256 of its contents, hexadecimal, whatever its time of change; of a
      remote one its size and what the store says of it, by which a web server may know no more than
      the size. The values of environment variables are no part of it.

    Raises:
      InputError: there is no such file.
    """
    size = _size(file)
    if not _is_remote(file):
        return checksum(file).sha256
    with _naming_file(file):
        system, path = _filesystem(file)
        secrets = secrets_of(file) if resolved(file, binding=file) != file else []
        if not secrets:
            return [size, system.ukey(path)]
        # A store's key may be a hash of the whole URL.
        known = {key: str(value) for key, value in sorted(system.info(path).items())}
        return [size, {k: v for k, v in known.items() if not any(s in v for s in secrets)}]


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
    compression = "gzip" if name(file).endswith(".gz") else None
    return pa.input_stream(_open(file), compression=compression)


def _open(file: str, **options: str) -> pa.NativeFile | BinaryIO:
    if not _is_remote(file):
        return pa.OSFile(file)
    with _naming_file(file):
        system, path = _filesystem(file)
        return io.BufferedReader(_Remote(file, system.open(path, "rb", **options)))


class _Remote(io.RawIOBase):
    """A file of a store whose errors, of any kind, say nothing secret."""

    def __init__(self, file: str, opened: BinaryIO):
        self._file, self._opened = file, opened

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._silenced():
            data = self._opened.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._silenced():
            return self._opened.seek(offset, whence)

    def tell(self) -> int:
        return self._opened.tell()

    def close(self) -> None:
        if not self.closed:
            self._opened.close()
        super().close()

    @contextlib.contextmanager
    def _silenced(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every store has errors of its own
            raise OSError(erased(str(error) or type(error).__name__, self._file)) from None


def _is_remote(file: str) -> bool:
    return "://" in file


def _has_settings(file: str) -> bool:
    """Returns whether a question mark in the name of a file begins settings."""
    return re.search(r"https?://", file) is not None


def _size(file: str) -> int | None:
    """Returns the size in bytes, where the store knows it."""
    if _is_remote(file):
        with _naming_file(file):
            system, remote = _filesystem(file)
            information = system.info(remote)
        is_file, size = information["type"] == "file", information.get("size")
        is_folder = information["type"] == "directory"
    else:
        path = Path(file)
        is_file, is_folder = path.is_file(), path.is_dir()
        size = path.stat().st_size if is_file else None
    if is_folder:
        raise InputError(f"{file}: a folder; bind its files, such as '{file.rstrip('/')}/*.csv'")
    if not is_file:
        raise InputError(f"{file}: no such file; bind the path of an existing one")
    if size == 0:
        raise InputError(f"{file}: the file is empty")
    return size


def _filesystem(file: str) -> tuple[Any, str]:
    import fsspec

    check_public(public_url(file), file)
    return fsspec.url_to_fs(resolved(file, binding=file))


@contextlib.contextmanager
def _naming_file(file: str) -> Iterator[None]:
    """Names the file in the error of a store.

    Every store fails with errors of its own: no credentials, a time-out, a package to install.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; bind the path of an existing one") from None
    except Exception as error:
        text = " ".join(erased(str(error), file).split())
        raise InputError(f"{file}: cannot be reached: {text}") from None
