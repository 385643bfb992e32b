"""T5, T5.1.1, FLAN-T5 and mT5: arXiv 1910.10683, 2210.11416, 2010.11934."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from dsirm_jax.generator.architectures.tensors import Weights

if TYPE_CHECKING:
    from dsirm_jax.generator.architectures.t5_weights import T5Model


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Family:
    """The family of `t5.T5Config`; see `family.Family`."""

    title: str
    model_types: tuple[str, ...]
    marked: tuple[bool, bool] = (False, True)
    shares_vocabulary: bool = True

    def model(self, weights: Weights) -> T5Model:
        from dsirm_jax.generator.architectures.t5_weights import T5Model

        return T5Model.of(weights)


FAMILY = T5Family(title="T5", model_types=("t5", "mt5"))
