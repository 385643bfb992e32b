"""Named features of pairs, in groups that a rung of the ablation ladder chooses from."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dsirm_jax.io.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureTable:
    """Features of pairs.

    Attributes:
      names: one per column, no name twice.
      groups: the group of each column.
      values: float32 `[pair, feature]`, finite.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    values: Float[np.ndarray, "pair feature"]

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names):
            (name, _), *_ = collections.Counter(self.names).most_common(1)
            columns = zip(self.names, self.groups, strict=True)
            groups = [group for column, group in columns if column == name]
            raise InputError(
                f"the feature groups {' and '.join(groups)} both have a column {name!r}; rename "
                f"that of your own (Source.extras, or extra_groups)"
            )

    def rows(self, kept: np.ndarray) -> FeatureTable:
        """Returns the pairs that a mask, or row numbers, keep."""
        return dataclasses.replace(self, values=self.values[kept])

    def select(self, names: Sequence[str]) -> FeatureTable:
        """Returns the columns named, in that order.

        Raises:
          InputError: the table lacks one.
        """
        names = tuple(names)
        if self.names == names:
            return self
        place = {name: column for column, name in enumerate(self.names)}
        missing = [name for name in names if name not in place]
        if missing:
            raise InputError(
                f"the features {', '.join(missing)}, which the head was fitted to, are not among "
                f"{', '.join(self.names)}; give it the feature groups of its rung"
            )
        kept = [place[name] for name in names]
        return FeatureTable(
            names=names,
            groups=tuple(self.groups[column] for column in kept),
            values=self.values[:, kept],
        )


def join(tables: Sequence[FeatureTable]) -> FeatureTable:
    """Returns the columns of several tables of the same pairs side by side."""
    return FeatureTable(
        names=sum((table.names for table in tables), ()),
        groups=sum((table.groups for table in tables), ()),
        values=np.concatenate([table.values for table in tables], axis=1),
    )
