"""Group-relative policy gradient under the trie, with experts in the group.

A query's group is `samples` SIDs drawn from the policy and `experts` SIDs known to be good. With
rewards `r_i`, advantages `A_i = (r_i - mean r) / max(std r, least_deviation)` over the whole group,
and `rho_il` the ratio of the probabilities of code `l` of SID `i` now and when it was drawn,

    loss = -mean_i sum_l min(rho_il A_i, clip(rho_il, 1 - clip, 1 + clip) A_i)
           + kl * mean_samples sum_l KL(policy(. | prefix) || reference(. | prefix))

meaned over queries. All distributions are those of the policy, renormalised over the codes that
continue a prefix in the trie, so that the divergence is exact, a sum over codes. Without experts
and at ratio 1 the first part's gradient is REINFORCE's of the mean reward, divided by the group's
deviation and with the group's mean as baseline; that of the divergence leaves out, as is customary,
that the prefixes are drawn. An expert was not drawn: its ratio is taken to what the policy gave to
it before the update, as if it had been, which pulls the policy to it as long as the group's mean
is below its reward; the more samples are as good, the less.

Source: GRPO, Shao et al. 2024, arXiv 2402.03300, whose mean over tokens is a sum here, for all SIDs
have one length; experts after EG-GRPO (expert-guided, "injecting ground-truth samples into the
policy gradient group"), CQ-SID, arXiv 2605.14434. Only its abstract was at hand: how experts are
drawn, their ratio, and that the `experts` come beside the samples are this project's.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float


def advantages(
    rewards: Float[Array, "query member"], *, least_deviation: float
) -> Float[Array, "query member"]:
    """Returns rewards less their group's mean, divided by its standard deviation.

    Args:
      rewards: of a query's group.
      least_deviation: what they are divided by at least.

    Returns:
      Exactly 0 where all rewards of a group are the same.
    """
    # From the least one on, so that the mean of equal rewards is not rounded.
    above = rewards - jnp.min(rewards, axis=-1, keepdims=True)
    centred = above - jnp.mean(above, axis=-1, keepdims=True)
    deviation = jnp.sqrt(jnp.mean(centred**2, axis=-1, keepdims=True))
    return centred / jnp.maximum(deviation, least_deviation)


def policy_loss(
    log_probs: Float[Array, "query member level"],
    drawn_log_probs: Float[Array, "query member level"],
    advantages: Float[Array, "query member"],
    *,
    clip: float,
) -> Float[Array, ""]:
    """Returns the clipped loss of a group's codes, see above.

    Args:
      log_probs: of the codes now.
      drawn_log_probs: when they were drawn.
      advantages: of the SIDs.
      clip: see `Alignment.clip`.
    """
    ratio = jnp.exp(log_probs - drawn_log_probs)
    clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
    gain = jnp.minimum(ratio * advantages[..., None], clipped * advantages[..., None])
    return -jnp.mean(jnp.sum(gain, axis=-1))


def divergence(
    log_probs: Sequence[Float[Array, "*rows _code"]],
    reference: Sequence[Float[Array, "*rows _code"]],
) -> Float[Array, "*rows level"]:
    """Returns the divergence of each level's distribution from the reference's, nats.

    Args:
      log_probs: of all codes of each level, `FORBIDDEN` ones having no probability.
      reference: likewise.
    """
    terms = [
        jnp.sum(jnp.exp(own) * (own - other), axis=-1)
        for own, other in zip(log_probs, reference, strict=True)
    ]
    return jnp.stack(terms, axis=-1)
