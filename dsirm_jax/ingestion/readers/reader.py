"""What every reader is: where input comes from, behind one protocol."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from dsirm_jax.data.schema import Source
from dsirm_jax.io.errors import InputError


@runtime_checkable
class Reader(Protocol):
    """A kind of input: a frozen dataclass of its settings, chosen in gin by its class.

    Another kind is a file of its own, here or in any module that a gin file imports.
    """

    def files(self) -> list[str]:
        """Returns the files that it reads, whose contents are part of a stage's fingerprint.

        A reader of anything else returns none.
        """
        ...

    def read(self) -> Source:
        """Returns items and judgements in the raw schemas of `data.schema`, streamed in parts.

        Raises:
          InputError: the input cannot be read.
        """
        ...


def check_reader(source: Any) -> None:
    """Raises InputError where `prepare.run.source` is bound to anything but a reader."""
    if isinstance(source, type) or not isinstance(source, Reader):
        raise InputError(
            f"gin binding prepare.run.source is {source!r}; bind a reader, such as @tables.Tables()"
        )
