"""What there is to say of the labels of a table: of those unknown, of those missing, of all."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import ibis
from ibis import _

from dsirm_jax.data import relations, schema
from dsirm_jax.data.findings import Finding
from dsirm_jax.data.labels import Grades, Labels, LabelTable
from dsirm_jax.data.numerals import readings
from dsirm_jax.data.staging import Staged
from dsirm_jax.data.validate import UNKNOWN_LABEL
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
    unknown = relations.counts(rejected.filter(_.reason == UNKNOWN_LABEL), "value")
    unrated = relations.counts(
        rejected.filter(_.reason == schema.UNRATED).mutate(value=_.value.fill_null("")), "value"
    )
    findings = []
    if unknown:
        known = relations.counts(rows.filter(_.label.notnull()), "label")
        text = (
            f"column {column}: {sum(unknown.values())} of {staged.read} labels are unknown; "
            f"found {_listed(unknown)}"
            f"{f', beside {_listed(known)}' if known else ''}; expected {labels.expected()}; "
            f"{BINDINGS} to what is found"
        )
        numbers = [readings(label) for label in (*unknown, *known)]
        if all(numbers) and not isinstance(labels, Grades):
            text += (
                ", or, since all are numbers, LABEL_GAINS to @labels.Grades() and "
                "labels.Grades.relevant_from to the lowest number that is relevant"
            )
        findings.append(Finding(table="judgements", text=text))
    if unrated:
        count = sum(unrated.values())
        if count == staged.read:
            raise InputError(
                f"judgements: all {count} rows are unrated: column {column} has {_listed(unrated)} "
                "and no count is above 0; map label, or impressions, clicks and purchases, in "
                "JUDGEMENT_COLUMNS"
            )
        findings.append(
            Finding(
                table="judgements",
                text=f"{count} of {staged.read} rows are unrated, with neither a label nor a count "
                f"({column} is {_listed(unrated)}), and are left out",
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


def _listed(counts: dict[str, int]) -> str:
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    named = ", ".join(f"{value!r:.40} ({counts[value]})" for value in ordered[:NAMED])
    return named + (f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else "")
