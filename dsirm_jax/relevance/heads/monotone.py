"""Features, by their names, with which a head's output may only rise, or only fall."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from jaxtyping import Int

from dsirm_jax.io.checks import check_holds
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.heads.head import GRADED, Fitting


class Monotone(Protocol):
    """Settings of a head that may be held to directions.

    Attributes:
      loss: as in `head.Head`.
      rising: names of features with which the output does not fall.
      falling: names of features with which it does not rise.
    """

    @property
    def loss(self) -> str: ...

    @property
    def rising(self) -> tuple[str, ...]: ...

    @property
    def falling(self) -> tuple[str, ...]: ...


def check_directions(head: Monotone) -> None:
    """Raises InputError where a head's directions are not names, or contradict each other."""
    kind = type(head).__name__
    for field, names in (("rising", head.rising), ("falling", head.falling)):
        check_holds(
            isinstance(names, tuple) and all(isinstance(name, str) for name in names),
            binding=f"{kind}.{field}",
            value=names,
            remedy="a tuple of names of features, such as ('cosine',)",
        )
    check_holds(
        not {*head.rising} & {*head.falling},
        binding=f"{kind}.falling",
        value=head.falling,
        remedy=f"none of the names that {kind}.rising has",
    )
    check_holds(
        head.loss != GRADED or not (head.rising or head.falling),
        binding=f"{kind}.loss",
        value=head.loss,
        remedy=f"another one where {kind}.rising or {kind}.falling is bound: of several grades no "
        f"single output rises",
    )


def directions(head: Monotone, fitting: Fitting, *, features: int) -> Int[np.ndarray, " feature"]:
    """Returns 1, -1 or 0 for each feature: whether the output is to rise, to fall, or neither.

    A name that another rung has and these pairs lack holds nothing here.

    Args:
      head: the settings.
      fitting: whose `columns` the features are.
      features: their number.

    Raises:
      InputError: no rung has a column of a name.
    """
    signs = dict.fromkeys(head.rising, 1) | dict.fromkeys(head.falling, -1)
    for name in signs:
        if name not in fitting.columns and name not in fitting.elsewhere:
            field = "rising" if signs[name] > 0 else "falling"
            raise InputError(
                f"gin binding {type(head).__name__}.{field} names {name!r}; bind features of a "
                f"rung, of {fitting.name}: {', '.join(fitting.columns) or 'none'}"
            )
    if not signs:
        return np.zeros(features, int)
    return np.array([signs.get(name, 0) for name in fitting.columns], int)


def is_free(head: Monotone) -> bool:
    """Returns whether a head is held to no direction."""
    return not (head.rising or head.falling)
