"""When the nearest are found by lists, and how well."""

from __future__ import annotations

import dataclasses

from dsirm_jax.io.checks import check_number, check_whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListSettings:
    """When lists are made, and how well they find.

    Attributes:
      least: candidates from which on there are lists; fewer are searched exhaustively.
      recall: share of the nearest that exhaustive search finds which lists are to find.

    Raises:
      InputError: a value is out of range.
    """

    least: int = 100_000
    recall: float = 0.99

    def __post_init__(self) -> None:
        check_whole("ListSettings.least", self.least, least=2)
        check_number("ListSettings.recall", self.recall, above=0, most=1)


DEFAULT = ListSettings()
