"""How a generator is aligned."""

from __future__ import annotations

import dataclasses
import math

from dsirm_jax.generator.alignment.rewards.reward import Reward
from dsirm_jax.io.checks import check_holds, check_number, check_whole
from dsirm_jax.training.settings import Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment:
    """How a fitted generator is trained on with rewards of what it writes; see `losses`.

    Attributes:
      reward: what an item's SID is worth to a query.
      training: how long and how fast; a row is a query. Of the queries held out, which supervised
        training must have held out as well, the reward says which checkpoint is the best, and
        whether any is better than the supervised generator, which is kept otherwise.
      samples: SIDs drawn for each query and step.
      experts: SIDs that join each query's samples in every step, drawn from those that are worth
        something to it, in proportion to what they are worth.
      temperature: that the logits of the policy, which is sampled and learns, are divided by.
      prefix_share: what is left of a SID's worth for each of its last codes that a sample has not
        got right; nothing is where the first code is wrong.
      kl: weight of the divergence from the supervised generator, per nat.
      updates: of the parameters by the samples of one step.
      clip: share that the probability of a code may have changed by since it was drawn before it
        no longer counts; only further `updates` can reach it.
      least_deviation: of the rewards of a query's SIDs, which advantages are divided by.
    """

    reward: Reward
    training: Training
    samples: int = 8
    experts: int = 2
    temperature: float = 1.0
    prefix_share: float = 0.0
    kl: float = 0.1
    updates: int = 1
    clip: float = 0.2
    least_deviation: float = 0.1

    def __post_init__(self) -> None:
        check_holds(
            isinstance(self.reward, Reward),
            binding="Alignment.reward",
            value=self.reward,
            remedy="a kind of reward, such as @judged.JudgedGains()",
        )
        check_holds(
            isinstance(self.training, Training) and self.training.held_out > 0,
            binding="Alignment.training",
            value=self.training,
            remedy="settings with a share held_out above 0, such as 0.1",
        )
        check_whole("Alignment.samples", self.samples, least=2)
        check_whole("Alignment.experts", self.experts, least=0)
        check_whole("Alignment.updates", self.updates, least=1)
        check_number("Alignment.temperature", self.temperature, above=0, below=math.inf)
        check_number("Alignment.prefix_share", self.prefix_share, least=0, most=1)
        check_number("Alignment.kl", self.kl, least=0, below=math.inf)
        check_number("Alignment.clip", self.clip, above=0, below=1)
        check_number("Alignment.least_deviation", self.least_deviation, above=0, below=math.inf)

    def files(self) -> list[str]:
        """Returns the user's files that it reads."""
        return self.reward.files()
