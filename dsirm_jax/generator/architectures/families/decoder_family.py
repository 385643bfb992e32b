"""What decoder-only families differ in, beside the entries of their `config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dsirm_jax.generator.architectures.tensors import Weights

if TYPE_CHECKING:
    from dsirm_jax.generator.architectures.decoder_model import DecoderModel

Entries = Mapping[str, Any]


def common_entries(described: Entries) -> Entries:
    """Returns what GGUF takes for granted of most families."""
    del described
    return {"hidden_act": "silu"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderFamily:
    """A family of `decoder_only.DecoderConfig`; see `family.Family`.

    Attributes:
      title: see `family.Family`.
      model_types: likewise.
      marked: likewise.
      shares_vocabulary: likewise.
      settings: of the architecture.
      activation: the entry that names the activation.
      scale_offset: added to the stored scales of norms.
      is_tied: whether the embedding is the output layer where no entry says so.
      gguf_name: what GGUF calls it, `general.architecture`.
      gguf_turns: whether GGUF has the rows of queries and keys of a head in pairs, as they are
        turned, where Hugging Face has them in halves.
      gguf_entries: those of `config.json` that GGUF lacks, by those that it has.
    """

    title: str
    model_types: tuple[str, ...]
    marked: tuple[bool, bool] = (False, False)
    shares_vocabulary: bool = False
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    activation: str = "hidden_act"
    scale_offset: float = 0.0
    is_tied: bool = False
    gguf_name: str
    gguf_turns: bool = False
    gguf_entries: Callable[[Entries], Entries] = common_entries

    def model(self, weights: Weights) -> DecoderModel:
        from dsirm_jax.generator.architectures.decoder_model import DecoderModel

        return DecoderModel.of(weights)
