"""TREC runs: results of a search, which nobody has judged."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import ClassVar

from dsirm_jax.data.file_starts import FileStart
from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import Part
from dsirm_jax.io.errors import InputError

_LINE = re.compile(r".*\S\s+(?:Q0|q0|0)\s+\S+\s+\d+\s+[+-]?[\d.]+(?:[eE][+-]?\d+)?\s+\S+")
_SAMPLE = 200
_LEAST_SHARE = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrecRun:
    """A TREC run, `topic Q0 docid rank score tag` on a line: refused, for it has no judgements."""

    title: ClassVar[str] = "TREC run"

    def recognises(self, start: FileStart) -> bool:
        lines = start.lines[:_SAMPLE]
        fitting = sum(_LINE.fullmatch(line) is not None for line in lines)
        return bool(lines) and fitting >= _LEAST_SHARE * len(lines)

    def read(
        self, files: Sequence[str], *, queries: Sequence[str]
    ) -> tuple[list[Part], list[Finding]]:
        raise InputError(
            f"{files[0]}: is a TREC run (topic Q0 docid rank score tag), whose results nobody has "
            "judged; bind Tables.judgements to the qrels"
        )
