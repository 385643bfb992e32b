"""The first bytes of a file, by which its layout is recognised."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import functools
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dsirm_jax.io import storage
from dsirm_jax.io.errors import InputError

_BYTES = 1 << 20
_BUFFER = 1 << 22


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileStart:
    """What a file begins with.

    Attributes:
      file: path or URL.
      suffix: of its name, in lower case, without `.gz`.
      text: its first characters, about 1e6, up to the end of a line; none of a Parquet file.
      columns: names of the columns of a Parquet file; of any other file none.
    """

    file: str
    suffix: str
    text: str = ""
    columns: tuple[str, ...] = ()

    @functools.cached_property
    def lines(self) -> list[str]:
        """The lines that are not blank, without the white space around them."""
        # As `numbered_lines` parts them: texts may have other separators of lines in them.
        return [line.strip() for line in re.split(r"[\r\n]+", self.text) if line.strip()]


def suffix(file: str) -> str:
    """Returns the suffix of a file's name in lower case, that before `.gz`.

    Example:
      >>> suffix("s3://logs/2026.QRELS.gz")
      '.qrels'
    """
    return Path(storage.name(file).removesuffix(".gz")).suffix.lower()


def file_start(file: str) -> FileStart:
    """Reads what a file begins with.

    Raises:
      InputError: there is no such file, it is empty or cannot be read.
    """
    kind = suffix(file)
    with _readable(storage.require_file(file)), storage.stream(file) as source:
        data = source.read(_BYTES)
    if data.startswith(b"PAR1"):
        return FileStart(file=file, suffix=kind, columns=_parquet_columns(file))
    check_is_text(file, data)
    text = data.decode(_encoding(data), "surrogateescape")
    if len(data) == _BYTES and "\n" in text:
        text = text[: text.rindex("\n")]
    return FileStart(file=file, suffix=kind, text=text)


def _parquet_columns(file: str) -> tuple[str, ...]:
    if storage.name(file).endswith(".gz"):
        return ()
    with _readable(file), storage.open_file(file) as source:
        return tuple(pq.read_schema(source).names)


def numbered_lines(file: str) -> Iterator[tuple[int, str]]:
    """Yields the lines of a text that are not blank, each with its number, from 1.

    Bytes that are no UTF-8 are kept as lone surrogates; UTF-16 is told by its first bytes.

    Raises:
      InputError: the file cannot be read.
    """
    with _readable(file), storage.stream(file) as start:
        encoding = _encoding(start.read(4))
    with (
        _readable(file),
        storage.stream(file) as source,
        io.TextIOWrapper(
            io.BufferedReader(source, _BUFFER), encoding=encoding, errors="surrogateescape"
        ) as text,
    ):
        for number, line in enumerate(text, 1):
            if line and not line.isspace():
                yield number, line


def as_bytes(text: str) -> bytes:
    """Returns the bytes of a text of `numbered_lines`, those that are no UTF-8 as they were."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        # What JSON escapes may be half a surrogate pair.
        return text.encode("utf-8", "surrogatepass" if _is_escaped(text) else "surrogateescape")


def _is_escaped(text: str) -> bool:
    return any("\ud800" <= mark <= "\udfff" and not "\udc80" <= mark <= "\udcff" for mark in text)


def _encoding(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


_NO_TEXTS = {
    b"\x1f\x8b": "packed by gzip: give its name a .gz at the end",
    b"PAR1": "a Parquet file: name it .parquet",
    b"PK\x03\x04": "an archive or a sheet (.zip, .xlsx): unpack it, or export it as CSV",
    b"\xd0\xcf\x11\xe0": "a sheet of Excel: export it as CSV",
    b"\x28\xb5\x2f\xfd": "packed by zstd: unpack it, or pack it by gzip",
    b"\xfd7zXZ": "packed by xz: unpack it, or pack it by gzip",
    b"BZh": "packed by bzip2: unpack it, or pack it by gzip",
}
"""The first bytes of files that are no text, whatever their names say."""


def check_is_text(file: str, head: bytes) -> None:
    """Raises InputError for a file that is packed, or of a format of its own.

    Args:
      file: as messages name it.
      head: its first bytes.
    """
    for start, kind in _NO_TEXTS.items():
        if head.startswith(start):
            raise InputError(f"{file}: no text, but {kind}")


@contextlib.contextmanager
def _readable(file: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{file}: cannot be read: {reason}") from error
