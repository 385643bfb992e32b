"""The labels of judgements: which exist, their gains, and which of them count as relevant."""

from __future__ import annotations

import dataclasses
import functools
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from dsirm_jax.ingestion.numbers import canonical, readings
from dsirm_jax.io.checks import check_number
from dsirm_jax.io.errors import InputError

GRADES = pa.schema(
    [
        ("grade", pa.float64()),
        ("label", pa.string()),
        ("gain", pa.float64()),
        ("relevant", pa.bool_()),
    ]
)
"""What a grade is worth."""

MISSING = frozenset({"", "nan", "null", "none", "n/a", "na", "<na>", r"\n"})
"""Lower-case texts that say that a pair was not rated, where they are no label."""

DIGITS = 6
"""Decimal places of a mean of grades; exact means of a few raters have fewer that matter."""


@runtime_checkable
class Labels(Protocol):
    """A kind of labels: what `prepare.run.label_gains` is bound to.

    A label has a *grade*, its place among the labels: the higher, the better.

    Attributes:
      names: the labels where they can be listed, as they are bound; else none.
      lowest: the lowest grade, of what was shown in vain.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def lowest(self) -> float: ...

    def grade(self, label: str) -> float | None:
        """Returns the grade of a label as a table writes it; None: there is no such label."""
        ...

    def expected(self) -> str:
        """Returns what labels are expected, for messages."""
        ...

    def rows(self, grades: Sequence[float]) -> pa.Table:
        """Returns `GRADES`, a row each of these grades, or of all that there are."""
        ...

    def mean_rows(self, gains: Sequence[float]) -> pa.Table:
        """Returns `GRADES`, a row each of these mean gains, in order: the nearest label."""
        ...


def labels_of(label_gains: Mapping[Any, float] | Labels, relevant_labels: Sequence[Any]) -> Labels:
    """Returns the labels that are bound.

    Args:
      label_gains: the legal labels, each with its gain; or labels of another kind.
      relevant_labels: of a table of gains, some of the labels; other kinds decide themselves.

    Raises:
      InputError: one of the two is not legal; the message names its gin binding.
    """
    is_kind = isinstance(label_gains, Labels) and not isinstance(label_gains, type)
    bound: Any = label_gains
    return bound if is_kind else LabelTable(gains=bound, relevant=relevant_labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelTable:
    """Labels of a list, each with its gain.

    A table's label is the one that is written alike, equal as a number (`2`, `2.0`, `"2,0"`,
    `true` and 1) or alike but for case and Unicode form, where that is one label alone.

    Attributes:
      gains: the labels, texts, numbers or truth values, each with its gain.
      relevant: some of them, not all.
    """

    gains: Mapping[Any, float]
    relevant: Sequence[Any]

    def __post_init__(self) -> None:
        if not isinstance(self.gains, Mapping) or len(self.gains) < 2:
            raise InputError(
                f"gin binding prepare.run.label_gains is {self.gains!r}; bind two labels or more, "
                "each with its gain, such as {'0': 0.0, '1': 1.0}, or @labels.Grades()"
            )
        for label, gain in self.gains.items():
            _name(label)
            check_number(f"prepare.run.label_gains[{label!r}]", gain, least=0, below=math.inf)
        numbers: dict[float, Any] = {}
        for label in self.gains:
            for number in readings(_name(label)):
                if number in numbers:
                    raise InputError(
                        f"gin binding prepare.run.label_gains has the labels {numbers[number]!r} "
                        f"and {label!r}, which are equal as numbers; bind one of them"
                    )
                numbers[number] = label
        if len({*map(_name, self.gains)}) < len(self.gains):
            raise InputError(
                f"gin binding prepare.run.label_gains is {self.gains!r}, in which two labels are "
                "written alike; bind one of them"
            )
        if isinstance(self.relevant, str) or not isinstance(self.relevant, Sequence):
            raise InputError(
                f"gin binding prepare.run.relevant_labels is {self.relevant!r}; bind a tuple of "
                "labels, such as ('1',)"
            )
        for label in self.relevant:
            if self.grade(str(label)) is None:
                raise InputError(
                    f"gin binding prepare.run.relevant_labels has {label!r}, which is none of "
                    f"label_gains; bind some of {', '.join(map(repr, self.gains))}"
                )
        if not 0 < len(self._relevant) < len(self.gains):
            raise InputError(
                f"gin binding prepare.run.relevant_labels is {tuple(self.relevant)} of "
                f"{tuple(self.gains)}; bind some of the labels, not all"
            )

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(map(_name, self.gains))

    lowest = 0.0

    def grade(self, label: str) -> float | None:
        if (place := self._places.get(label)) is not None:
            return place
        numbers = [self._numbers[number] for number in readings(label) if number in self._numbers]
        found = {*numbers, *self._folded.get(_folded(label), ())}
        return found.pop() if len(found) == 1 else None

    def expected(self) -> str:
        return ", ".join(repr(_name(label)) for label in self.gains)

    def rows(self, grades: Sequence[float] = ()) -> pa.Table:
        relevant = [place in self._relevant for place in self._places.values()]
        columns = [[*self._places.values()], [*self._places], self._gains, relevant]
        return pa.table(columns, schema=GRADES)

    def mean_rows(self, gains: Sequence[float]) -> pa.Table:
        """Of two labels that are equally near, the lower; relevant where that label is."""
        means, known = np.asarray(gains, float), np.array(self._gains)
        # Shares of the largest gain, rounded, so that a tie is one whatever the rounding errors.
        distances = np.abs(means[:, None] - known[None]) / (known.max() or 1.0)
        places = np.argmin(np.round(distances, DIGITS), axis=1)
        nearest = self.rows().take(pa.array(places))
        return nearest.set_column(GRADES.get_field_index("gain"), "gain", pa.array(means))

    @functools.cached_property
    def _places(self) -> dict[str, float]:
        """The grade of each label, the lowest first; of the same gain, by name."""
        gains = dict(zip(self.names, self.gains.values()))
        ordered = sorted(gains, key=lambda name: (-gains[name], name))[::-1]
        return {name: float(place) for place, name in enumerate(ordered)}

    @functools.cached_property
    def _gains(self) -> list[float]:
        gains = dict(zip(self.names, self.gains.values()))
        return [float(gains[name]) for name in self._places]

    @functools.cached_property
    def _numbers(self) -> dict[float, float]:
        return {number: place for name, place in self._places.items() for number in readings(name)}

    @functools.cached_property
    def _folded(self) -> dict[str, set[float]]:
        folded: dict[str, set[float]] = {}
        for name, place in self._places.items():
            folded.setdefault(_folded(name), set()).add(place)
        return folded

    @functools.cached_property
    def _relevant(self) -> set[float | None]:
        return {self.grade(str(label)) for label in self.relevant}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grades:
    """Labels that are numbers, such as means of raters, with a gain that is linear in them.

    The gain of a grade is grade - least, as a share of most - least where `most` is bound. The
    prepared label is the shortest text of the number. Source: the linear gain is that of Järvelin
    and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques".

    Attributes:
      relevant_from: the lowest grade that counts as relevant; it must be bound.
      least: the lowest grade that there is, whose gain is 0; one below it is no label.
      most: the highest grade that there is, whose gain is then 1; None: no limit.
    """

    relevant_from: float = math.nan
    least: float = 0.0
    most: float | None = None

    def __post_init__(self) -> None:
        check_number("labels.Grades.least", self.least, above=-math.inf, below=math.inf)
        if self.most is not None:
            check_number("labels.Grades.most", self.most, above=self.least, below=math.inf)
        bound = {"below": math.inf} if self.most is None else {"most": self.most}
        check_number("labels.Grades.relevant_from", self.relevant_from, above=self.least, **bound)

    names = ()

    @property
    def lowest(self) -> float:
        return float(self.least)

    def grade(self, label: str) -> float | None:
        legal = [
            number
            for number in readings(label)
            if number >= self.least and (self.most is None or number <= self.most)
        ]
        return legal[0] if len(legal) == 1 else None

    def expected(self) -> str:
        most = "" if self.most is None else f" to {self.most} (labels.Grades.most)"
        return f"numbers from {self.least} (labels.Grades.least){most}"

    def rows(self, grades: Sequence[float]) -> pa.Table:
        numbers = np.asarray(grades, float)
        gains = (numbers - self.least) / self._span
        names = [canonical(number) for number in numbers.tolist()]
        return pa.table([numbers, names, gains, numbers >= self.relevant_from], schema=GRADES)

    def mean_rows(self, gains: Sequence[float]) -> pa.Table:
        """The nearest label is the mean grade itself."""
        grades = np.round(self.least + np.asarray(gains, float) * self._span, DIGITS)
        return self.rows(grades.tolist())

    @property
    def _span(self) -> float:
        return 1.0 if self.most is None else self.most - self.least


def is_missing(label: str) -> bool:
    """Whether a text that is no label says that there is none."""
    return label.lower() in MISSING


def _name(label: Any) -> str:
    """Returns the text of a key of `label_gains`."""
    if isinstance(label, bool):
        return str(label)
    if isinstance(label, int | float) and math.isfinite(label):
        return canonical(float(label))
    if not isinstance(label, str) or not label or label != label.strip():
        raise InputError(
            f"gin binding prepare.run.label_gains has the label {label!r}; bind texts that are "
            "not empty, without space around them, or numbers"
        )
    return label


def _folded(label: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())
