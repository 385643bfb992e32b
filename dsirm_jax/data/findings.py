"""What a user should know of their tables: how they were read, and what is probably wrong."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One line about a table.

    Attributes:
      table: items, judgements or queries.
      text: what was seen, with its number, and what to bind or mend where that would be better.
      is_fault: something is probably wrong; otherwise the line says how the table was read.
    """

    table: str
    text: str
    is_fault: bool = True

    @property
    def level(self) -> int:
        """Level of its line in a log."""
        return logging.WARNING if self.is_fault else logging.INFO


def say(findings: Iterable[Finding]) -> None:
    """Logs findings, a line each: faults as warnings."""
    for finding in findings:
        log.log(finding.level, "prepare: %s: %s", finding.table, finding.text)
