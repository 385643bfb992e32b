"""A pretrained decoder-only language model as `dsirm import-model` looks at it and writes it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import safetensors.numpy
from jaxtyping import Int

from dsirm_jax.data.vocabularies.trimming import kept_rows
from dsirm_jax.data.vocabulary import PAD
from dsirm_jax.generator.architectures.decoder_only import NOT_OF_WEIGHTS, DecoderConfig
from dsirm_jax.generator.architectures.decoder_settings import settings_of
from dsirm_jax.generator.architectures.decoder_weights import Names, checked_names
from dsirm_jax.generator.architectures.tensors import CONFIG, SINGLE, Weights
from dsirm_jax.io.files import write_json

SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Entries that a vocabulary numbered anew says otherwise, where it has them at all."""
HALVES = ("F16", "BF16")
"""Types that are written as they are; others are float32, or become it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderModel:
    """See `families.family.Model`.

    Attributes:
      weights: its files.
      config: its settings.
      names: of its tensors.
    """

    weights: Weights
    config: DecoderConfig
    names: Names

    @classmethod
    def of(cls, weights: Weights) -> DecoderModel:
        """Looks at the settings and tensors of a model; see `families.family.Family.model`."""
        config = DecoderConfig(**settings_of(weights.config, path=weights.config_file))
        names = checked_names(weights, config=config, tokens=config.text_vocab_size)
        return cls(weights=weights, config=config, names=names)

    @property
    def decisive(self) -> tuple[str, ...]:
        fields = (field.name for field in dataclasses.fields(self.config))
        return tuple(name for name in fields if name not in NOT_OF_WEIGHTS)

    @property
    def bytes_per_token(self) -> int:
        tables = (self.weights.tensors[name] for name in self._tables)
        return sum(of.shape[1] * (2 if of.dtype in HALVES else 4) for of in tables)

    @property
    def _tables(self) -> tuple[str, ...]:
        """Tensors that have a row for every token."""
        return tuple({self.names.embedding: None, self.names.output: None})

    def write(self, folder: Path, *, kept: Int[np.ndarray, " kept"]) -> str:
        others = (name for names in self.names.layers.values() for name in names)
        arrays = {name: self.weights.read(name) for name in (self.names.norm, *others)}
        for name in self._tables:
            arrays[name] = np.ascontiguousarray(kept_rows(self.weights.read(name), kept))
        said = dict(self.weights.config) | {"vocab_size": len(kept)}
        if not np.array_equal(kept, np.arange(len(kept))):
            said = {name: of for name, of in said.items() if name not in SPECIAL_IDS}
            said["pad_token_id"] = PAD
        write_json(folder / CONFIG, said)
        path = folder / SINGLE
        safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})
        shutil.copymode(folder / CONFIG, path)  # save_file lets nobody else read it
        return ""
