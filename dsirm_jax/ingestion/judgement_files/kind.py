"""What every kind of judgement file is, behind one protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import Part
from dsirm_jax.ingestion.formats.file_starts import FileStart


@runtime_checkable
class JudgementKind(Protocol):
    """A layout: a frozen dataclass of its settings, chosen in gin by its class.

    Another kind is a file of its own, here or in any module that a gin file imports.

    Attributes:
      title: what messages call it.
    """

    title: ClassVar[str]

    def recognises(self, start: FileStart) -> bool:
        """Returns whether a file that begins so can be nothing else."""
        ...

    def read(
        self, files: Sequence[str], *, queries: Sequence[str]
    ) -> tuple[list[Part], list[Finding]]:
        """Returns the parts of some files in the columns of `schema.RAW_JUDGEMENTS`.

        Every record of a file is a row of a part: one that cannot be read is `unreadable`, with
        the reason. What is left out is counted in a finding.

        Args:
          files: paths or URLs.
          queries: files of the queries' texts, for what names queries by id; see `data.topics`.

        Raises:
          InputError: a file cannot be read, or lacks what would make a judgement of it.
        """
        ...
