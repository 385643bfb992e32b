"""What there is to say of the labels of a table: of those unknown, of those missing, of all."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import ibis
from ibis import _

from dsirm_jax.data import schema
from dsirm_jax.data.findings import Finding
from dsirm_jax.ingestion.grading.labels import Grades, Labels, LabelTable
from dsirm_jax.ingestion.joins import relations
from dsirm_jax.ingestion.numbers import readings
from dsirm_jax.ingestion.validation.staging import Staged
from dsirm_jax.ingestion.validation.validate import UNKNOWN_LABEL
from dsirm_jax.io.errors import InputError

NAMED_LABELS = 50
"""Labels that the summary counts by name, where they are numbers: the most frequent."""

NAMED = 10
"""Labels that a line names."""

BINDINGS = (
    "bind LABEL_GAINS (prepare.run.label_gains) and RELEVANT_LABELS (prepare.run.relevant_labels)"
)


def label_findings(
    rows: ibis.Table, rejected: ibis.Table, staged: Staged, *, labels: Labels
) -> list[Finding]:
    """Returns what there is to say of the labels of checked judgements.

    Args:
      rows: those that passed.
      rejected: those that did not, for what shows in a row alone.
      staged: the raw table.
      labels: those that exist.

    Raises:
      InputError: no judgement is rated.
    """
    column = staged.columns.get("label", "label")
    unknown = _Counts.of(rejected.filter(_.reason == UNKNOWN_LABEL), "value")
    missing = rejected.filter(_.reason == schema.UNRATED).mutate(value=_.value.fill_null(""))
    unrated = _Counts.of(missing, "value")
    findings = []
    if unknown.rows:
        known = _Counts.of(rows.filter(_.label.notnull()), "label")
        text = (
            f"column {column}: {unknown.rows} of {staged.read} labels are unknown; found {unknown}"
            f"{f', beside {known}' if known.rows else ''}; expected {labels.expected()}; "
            f"{BINDINGS} to what is found"
        )
        numbers = [readings(label) for label in (*unknown.named, *known.named)]
        if all(numbers) and not isinstance(labels, Grades):
            text += (
                ", or, since all are numbers, LABEL_GAINS to @labels.Grades() and "
                "labels.Grades.relevant_from to the lowest number that is relevant"
            )
        findings.append(Finding(table="judgements", text=text))
    if unrated.rows:
        if unrated.rows == staged.read:
            raise InputError(
                f"judgements: all {unrated.rows} rows are unrated: column {column} has {unrated} "
                "and no count is above 0; map label, or impressions, clicks and purchases, in "
                "JUDGEMENT_COLUMNS"
            )
        findings.append(
            Finding(
                table="judgements",
                text=f"{unrated.rows} of {staged.read} rows are unrated, with neither a label nor "
                f"a count ({column} is {unrated}), and are left out",
                is_fault=False,
            )
        )
    return findings


def settings_findings(labels: Labels, relevant_labels: Sequence[Any]) -> list[Finding]:
    """Returns what there is to say of labels that are no table of gains."""
    if isinstance(labels, LabelTable):
        return []
    text = (
        f"labels are {labels.expected()} ({labels!r}), which says what is relevant; "
        f"prepare.run.relevant_labels ({relevant_labels!r}) is not used"
    )
    return [Finding(table="judgements", text=text, is_fault=False)]


def label_counts(pairs: ibis.Table, labels: Labels) -> dict[str, int]:
    """Counts the pairs of each label, in the order of their names."""
    counts = relations.counts(pairs, "label")
    named = dict.fromkeys(labels.names, 0) | counts
    return named if labels.names else dict(itertools.islice(counts.items(), NAMED_LABELS))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Counts:
    """How often values occur: the most frequent by name, of the others how many there are."""

    rows: int
    named: dict[str, int]
    others: int

    @classmethod
    def of(cls, rows: ibis.Table, column: str) -> _Counts:
        groups = rows.group_by(column).agg(rows=_.count())
        totals = groups.agg(values=_.count(), rows=_["rows"].sum().fill_null(0))
        total = totals.to_pyarrow().to_pylist()[0]
        most = groups.order_by(ibis.desc("rows"), column).limit(NAMED).to_pyarrow()
        named = dict(zip(most[column].to_pylist(), most["rows"].to_pylist()))
        return cls(rows=int(total["rows"]), named=named, others=total["values"] - len(named))

    def __str__(self) -> str:
        named = ", ".join(f"{value!r:.40} ({count})" for value, count in self.named.items())
        return named + (f" and {self.others} more" if self.others else "")
