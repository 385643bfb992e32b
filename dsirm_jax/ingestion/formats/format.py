"""What every format of files is, and what all of them share."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import pyarrow as pa

from dsirm_jax.data.schema import Part
from dsirm_jax.ingestion.columns.mapping import ColumnMap
from dsirm_jax.ingestion.dialect import Dialect
from dsirm_jax.io.errors import InputError

_Row = TypeVar("_Row")
BUFFER = 1 << 22


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """How much of a file is read at a time.

    Attributes:
      rows: most rows of a chunk.
      bytes: bytes of a chunk, about, and the most that a single row of CSV or JSONL may have.
      part_rows: fewest rows of a part of a Parquet file that has more.
      sample: bytes at the head of a text file by which its dialect is sniffed.
    """

    rows: int = 16_384
    bytes: int = 1 << 24
    part_rows: int = 1 << 17
    sample: int = 1 << 20


LIMITS = Limits()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remark:
    """What was seen at the head of a file.

    Attributes:
      text: how the file is written, or what is wrong with it.
      is_fault: as in `findings.Finding`.
      is_bound: whether a `Dialect` can say otherwise.
    """

    text: str
    is_fault: bool = False
    is_bound: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """A file whose head has been read.

    Attributes:
      parts: its rows.
      names: of its columns; of JSON those of its first rows.
      remarks: how it is read, where that is not the plain way of its suffix.
    """

    parts: Sequence[Part]
    names: Sequence[str]
    remarks: Sequence[Remark] = ()


class Format(Protocol):
    """Opens a file of one format.

    A format is a function in a file of its own here, and an entry of `formats.FORMATS`.
    """

    def __call__(
        self,
        file: str,
        *,
        mapping: ColumnMap,
        dialect: Dialect,
        binding: str | None,
        limits: Limits,
    ) -> Opened:
        """Reads the head of a file.

        Args:
          file: path or URL.
          mapping: the columns to read.
          dialect: how the file is written; what is None is sniffed. Formats that say so themselves
            do not look at it.
          binding: the `Dialect` as a gin file names it, for messages; None: there is no such
            binding, and nobody reads the remarks.
          limits: how much is read at a time.

        Raises:
          InputError: the file is missing, empty, or lacks a column.
        """
        ...


def blocks(
    rows: Iterable[_Row], limits: Limits, *, size: Callable[[_Row], int]
) -> Iterator[list[_Row]]:
    """Groups rows to chunks."""
    block, total = [], 0
    for row in rows:
        block.append(row)
        total += size(row)
        if len(block) == limits.rows or total >= limits.bytes:
            yield block
            block, total = [], 0
    if block:
        yield block


@contextlib.contextmanager
def readable(file: str, kind: str) -> Iterator[None]:
    """Names the file in what goes wrong while it is read."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise InputError(f"{file}: not a readable {kind} file: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """Returns the start of an error's message in one line."""
    return " ".join(str(error).split())[:300]


def otherwise(binding: str | None, setting: str, mend: str) -> str:
    """Returns what to do about a file that is read in the wrong way.

    Args:
      binding: see `Format`.
      setting: the field of `Dialect` with its value.
      mend: what to do without a binding.
    """
    return f"bind {binding}.{setting}" if binding else mend
