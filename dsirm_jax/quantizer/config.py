"""Kind and shape of a quantizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dsirm_jax.data.product_type import LATEST_RULES, tag_of
from dsirm_jax.io.checks import check_number, check_whole
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.records import LATER
from dsirm_jax.quantizer.kinds.kind import Kind


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """Kind and shape of the quantizer.

    Attributes:
      codebook_sizes: codes per level, coarse to fine. DSIRM uses 216/512/512 (secondary note).
      kind: how vectors are encoded and codebooks fitted: `RqVae` (DSIRM; TIGER-style where
        `QuantizerObjective.contrastive` is 0), `ResidualKmeans`, `HierarchicalKmeans` (DSI-style),
        or one of your own.
      pin_depth: levels of the category path that name an item's first code, where it has one. The
        first codebook then has one code per category, at most `codebook_sizes[0]`; 0 pins nothing.
      title_language: in a catalogue without any category (or with `pin_depth` 0) an item's first
        code is named by its title's product type, see `product_type`: the language of the titles,
        None where it has no rules or nothing shall be pinned.
      title_rules: version of these rules, see `product_type.tag_of`.
      beams: partial SIDs kept while items are assigned; 1 takes the nearest codeword of each level.
      bucket_cap: items that may share SID and `suffix`, see `codes.suffixes`; None: any number.

    Raises:
      InputError: a value is out of its range.
    """

    codebook_sizes: tuple[int, ...]
    kind: Kind
    pin_depth: int = 0
    title_language: str | None = None
    beams: int = 1
    bucket_cap: int | None = None
    title_rules: int = dataclasses.field(default=1, metadata=LATER)

    def __post_init__(self) -> None:
        sizes = self.codebook_sizes
        if not (isinstance(sizes, Sequence) and len(sizes)) or isinstance(sizes, str):
            raise InputError(
                f"gin binding QuantizerConfig.codebook_sizes is {sizes!r}; bind the codes of each "
                f"level, such as (216, 512, 512)"
            )
        for size in sizes:
            check_whole("QuantizerConfig.codebook_sizes", size, least=1)
        object.__setattr__(self, "codebook_sizes", tuple(sizes))
        if isinstance(self.kind, type) or not isinstance(self.kind, Kind):
            raise InputError(
                f"gin binding QuantizerConfig.kind is {self.kind!r}; bind a kind, such as "
                f"@rq_vae.RqVae() (with `from dsirm_jax.quantizer.kinds import rq_vae`)"
            )
        check_whole("QuantizerConfig.pin_depth", self.pin_depth, least=0)
        if not isinstance(self.title_language, str | None):
            raise InputError(
                f"gin binding QuantizerConfig.title_language is {self.title_language!r}; bind a "
                f"language, such as 'en', or None"
            )
        check_whole("QuantizerConfig.title_rules", self.title_rules, least=1)
        check_number("QuantizerConfig.title_rules", self.title_rules, most=LATEST_RULES)
        check_whole("QuantizerConfig.beams", self.beams, least=1)
        if self.bucket_cap is not None:
            check_whole("QuantizerConfig.bucket_cap", self.bucket_cap, least=1)

    @property
    def type_language(self) -> str | None:
        """The language of titles with the version of its rules, as `product_type` wants it."""
        return tag_of(self.title_language, rules=self.title_rules)

    @property
    def pins(self) -> bool:
        """Whether first codes are pinned where categories or product types are known."""
        return bool(self.pin_depth or self.title_language)
