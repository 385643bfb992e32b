"""A fitted generator and its file: what prediction and scoring apply."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from dsirm_jax.data.vocabularies.prompt import QUERY, Prompted
from dsirm_jax.data.vocabularies.protocol import Vocabulary
from dsirm_jax.generator.architectures.architecture import Architecture
from dsirm_jax.generator.architectures.description import architecture_from, describe_architecture
from dsirm_jax.io.artefacts import Artefact, version_of
from dsirm_jax.io.errors import InputError
from dsirm_jax.sids import trie
from dsirm_jax.sids.codes import read_sids
from dsirm_jax.sids.trie import Trie

ARTEFACT = Artefact(kind="generator", stage="generate")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FittedGenerator:
    """A generator after training.

    Attributes:
      config: its network, `unscanned`.
      params: its parameters.
      max_pieces: tokens that it reads of a text.
      sid_version: of the SIDs that it writes, see `sids.codes.SidTable`.
      prompt: the text around every query, see `Prompted`.
    """

    config: Architecture
    params: Any
    max_pieces: int
    sid_version: str
    prompt: str = QUERY

    @functools.cached_property
    def version(self) -> str:
        """A hash of all that decides the SIDs of a query and their probabilities."""
        decisive = [describe_architecture(self.config), self.max_pieces, self.sid_version]
        if self.prompt != QUERY:  # files of before know of none
            decisive.append(self.prompt)
        return version_of(json.dumps(decisive), jax.tree.leaves(self.params))

    def reading(self, vocabulary: Vocabulary) -> Prompted:
        """Returns what makes the pieces of texts that it reads.

        Args:
          vocabulary: that it was trained with.
        """
        return Prompted(vocabulary=vocabulary, prompt=self.prompt, most=self.max_pieces)


def save(path: Path, fitted: FittedGenerator) -> None:
    """Writes a generator as one `safetensors` file, its configuration in the header."""
    description = {
        "config": describe_architecture(fitted.config),
        "max_pieces": fitted.max_pieces,
        "sid_version": fitted.sid_version,
    }
    if fitted.prompt != QUERY:
        description["prompt"] = fitted.prompt
    ARTEFACT.save(path, fitted.params, description=description, version=fitted.version)


def load(path: Path) -> FittedGenerator:
    """Reads what `save` wrote.

    Raises:
      InputError: there is no such file, or it holds no generator, or not the one it was.
    """
    params, header = ARTEFACT.load(path)
    fitted = FittedGenerator(
        config=architecture_from(header["config"]),
        params=params,
        max_pieces=header["max_pieces"],
        sid_version=header["sid_version"],
        prompt=header.get("prompt", QUERY),
    )
    ARTEFACT.check(path, written=header["version"], read=fitted.version)
    return fitted


def load_with_sids(
    path: Path, *, sids: Path
) -> tuple[FittedGenerator, Trie, Int[np.ndarray, "item level"]]:
    """Reads a generator, with the trie of the SIDs that it writes and the SIDs of the items.

    Args:
      path: what `save` wrote.
      sids: `sids.parquet` of the same run.

    Raises:
      InputError: see `load`; or the SIDs are of another version.
    """
    fitted, table = load(path), read_sids(sids)
    if fitted.sid_version != table.version:
        raise InputError(
            f"{path}: it writes SIDs of version {fitted.sid_version}, but those of {sids} are "
            f"{table.version}; run `dsirm generate`"
        )
    return fitted, trie.build(table.sids, sizes=fitted.config.sid_sizes), table.sids
