"""The labels of judgements: their gains, and which of them count as relevant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dsirm_jax.io.checks import check_number
from dsirm_jax.io.errors import InputError


def label_rows(
    label_gains: Mapping[str, float], relevant_labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns one row a label, the highest gain first: rank, label, gain and relevant.

    Args:
      label_gains: the legal labels, each with its gain.
      relevant_labels: some of them, not all.

    Raises:
      InputError: one of the two is not legal; the message names its gin binding.
    """
    if not isinstance(label_gains, Mapping) or len(label_gains) < 2:
        raise InputError(
            f"gin binding prepare.run.label_gains is {label_gains!r}; bind two labels or more, "
            "each with its gain, such as {'0': 0.0, '1': 1.0}"
        )
    for label, gain in label_gains.items():
        if not isinstance(label, str) or not label or label != label.strip():
            raise InputError(
                f"gin binding prepare.run.label_gains has the label {label!r}; bind texts that are "
                "not empty, without space around them"
            )
        check_number(f"prepare.run.label_gains[{label!r}]", gain, least=0, below=math.inf)
    if isinstance(relevant_labels, str) or not isinstance(relevant_labels, Sequence):
        raise InputError(
            f"gin binding prepare.run.relevant_labels is {relevant_labels!r}; bind a tuple of "
            "labels, such as ('1',)"
        )
    for label in relevant_labels:
        if label not in label_gains:
            raise InputError(
                f"gin binding prepare.run.relevant_labels has {label!r}, which is none of "
                f"label_gains; bind some of {', '.join(map(repr, label_gains))}"
            )
    if not 0 < len(set(relevant_labels)) < len(label_gains):
        raise InputError(
            f"gin binding prepare.run.relevant_labels is {tuple(relevant_labels)} of "
            f"{tuple(label_gains)}; bind some of the labels, not all"
        )
    ordered = sorted(label_gains, key=lambda label: (-label_gains[label], label))
    return [
        {
            "rank": rank,
            "label": label,
            "gain": float(label_gains[label]),
            "relevant": label in relevant_labels,
        }
        for rank, label in enumerate(ordered)
    ]
