"""How much the parts of `device.py` and `language_model.py` do, on an accelerator or a CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
from shapes import T5_BASE, T5_SMALL

from dsirm_jax.encoder.bert import BertConfig
from dsirm_jax.generator.architectures.t5 import T5Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """Shapes and counts of all parts.

    Attributes:
      vectors: that get SIDs here and on the CPU.
      dim: numbers of a vector.
      codes: per level, of these SIDs and of those that a generator writes.
      level: codes of each of three levels where all have as many.
      step_rows: batches of the quantizer's step.
      generators: that are trained, by name.
      generator_rows: of a step.
      fitted_rows: likewise, of the generators of `benchmarks/language_model.py`.
      pieces: of a query.
      vocabulary: text pieces.
      searched: the generator that searches; and whose answers are compared with the CPU's.
      queries: that it answers.
      items: that are assigned SIDs from a file.
      copied_rows: of each copy that the bare loop makes.
      bert: shape of the encoder.
      texts: that it encodes.
      sids: distinct ones, about, of the tries that are searched.
      batches: of queries searched at once.
      beams: kept.
      pairs: of a query and an item, whose features are computed; at most 1,000 a query.
      rounds: in which ours and another are timed in turn.
      calls: queued in each, of what takes less than a few milliseconds.
    """

    vectors: int
    dim: int
    codes: tuple[int, ...]
    level: int
    step_rows: tuple[int, ...]
    generators: Mapping[str, T5Config]
    generator_rows: int
    fitted_rows: int
    pieces: int
    vocabulary: int
    searched: T5Config
    queries: int
    items: int
    copied_rows: int
    bert: BertConfig
    texts: int
    sids: tuple[int, ...]
    batches: tuple[int, ...]
    beams: tuple[int, ...]
    pairs: tuple[int, ...]
    rounds: int
    calls: int


FULL = Sizes(
    vectors=2_000_000,
    dim=256,
    codes=(216, 512, 512),
    level=512,
    step_rows=(4096, 65536),
    generators={"t5_base": T5_BASE, "t5_small": T5_SMALL},
    generator_rows=1024,
    fitted_rows=256,
    pieces=32,
    vocabulary=32_000,
    searched=T5_SMALL,
    queries=64,
    items=4_000_000,
    copied_rows=262_144,
    bert=BertConfig(
        vocab_size=30_522,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    ),
    texts=16_384,
    sids=(10**5, 10**7),
    batches=(1, 32, 256),
    beams=(5, 70),
    pairs=(10**3, 10**6, 10**7),
    rounds=5,
    calls=50,
)
TINY_T5 = T5Config(
    emb_dim=32, num_heads=2, head_dim=16, mlp_dim=64, num_encoder_layers=1, num_decoder_layers=1
)
SMALL = Sizes(
    vectors=8192,
    dim=32,
    codes=(8, 16, 16),
    level=16,
    step_rows=(512,),
    generators={"t5_tiny": TINY_T5},
    generator_rows=16,
    fitted_rows=64,
    pieces=8,
    vocabulary=200,
    searched=TINY_T5,
    queries=8,
    items=16_384,
    copied_rows=4096,
    bert=BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    ),
    texts=64,
    sids=(10**3,),
    batches=(2,),
    beams=(3,),
    pairs=(10**3,),
    rounds=3,
    calls=3,
)


def sizes_here(*, quick: bool) -> Sizes:
    """Returns what suits the devices of this process."""
    return SMALL if quick or jax.default_backend() == "cpu" else FULL
