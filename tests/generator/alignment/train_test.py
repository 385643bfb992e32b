import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsirm_jax.generator.alignment.alignment import Alignment
from dsirm_jax.generator.alignment.queries import RewardedQueries
from dsirm_jax.generator.alignment.rewards.judged import JudgedGains
from dsirm_jax.generator.alignment.train import Given, align, make_step
from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.architectures.lora import ADAPTERS, CODES, TEXT, Lora
from dsirm_jax.io.errors import InputError
from dsirm_jax.training.loop import TrainState
from dsirm_jax.training.settings import Training
from tests.generator.alignment.tiny import CONFIG, EXISTING, TOKENS, TRIE, policy, sharp_params

TRAINING = Training(epochs=1, batch_size=8, learning_rate=1e-2, held_out=0.25, log_every=2)
PLAIN = Alignment(
    reward=JudgedGains(),
    training=TRAINING,
    samples=4000,
    experts=0,
    kl=0.0,
    least_deviation=1.0,  # above that of any rewards: they are divided by nothing
)
WORTH = np.array([[0.9, 0.0, 0.4, 0.0, 0.0, 0.2], [0.0, 0.5, 0.0, 0.0, 1.0, 0.0]], np.float32)
"""Of the SIDs that exist, to both queries."""


def one_step(params, alignment, *, worth=WORTH, reference=None, optimizer=None):
    """A step of plain gradient descent at rate 1: the gradient is what the parameters lose."""
    optimizer = optimizer or optax.sgd(1.0)
    step = make_step(CONFIG, alignment=alignment, optimizer=optimizer, seed=0)
    start = jax.tree.map(jnp.array, params)
    state = TrainState(step=jnp.int32(0), params=start, opt_state=optimizer.init(start))
    batch = {
        "query_index": np.array([3, 8], np.int32),
        "tokens": TOKENS,
        "sids": np.repeat(EXISTING[None], 2, axis=0),
        "rewards": worth,
    }
    after, metrics = step(state, Given(batch, reference or params, TRIE))
    gradient = jax.tree.map(
        lambda old, new: np.asarray(old) - np.asarray(new), params, after.params
    )
    return gradient, {name: float(value) for name, value in metrics.items()}


def moved(params, direction, width):
    return jax.tree.map(lambda array, along: array + width * along, params, direction)


def slope_of(function, params, direction, *, width=1e-2):
    up, down = (function(moved(params, direction, sign * width)) for sign in (1, -1))
    return (up - down) / (2 * width)


def along(tree, direction):
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: float((a * b).sum()), tree, direction)))


def expected_reward(params):
    return float((policy(params)[0] * WORTH).sum(axis=1).mean())


def test_the_gradient_is_that_of_the_expected_reward():
    """REINFORCE of 4,000 draws, against finite differences of the sum over all SIDs."""
    params = sharp_params(seed=3)
    gradient, metrics = one_step(params, PLAIN)
    assert metrics["reward"] == pytest.approx(expected_reward(params), abs=0.02)
    # Where the reward rises fastest the draws' noise is smallest beside the slope.
    norm = metrics["gradient_norm"]
    direction = jax.tree.map(lambda array: array / norm, gradient)
    measured = slope_of(expected_reward, params, direction)
    assert -along(gradient, direction) == pytest.approx(-norm, rel=1e-4)
    assert -norm == pytest.approx(measured, rel=0.1)
    rng = np.random.default_rng(0)
    for _ in range(3):
        other = jax.tree.map(lambda a: rng.normal(size=a.shape).astype("f4") / 10, params)
        slope = slope_of(expected_reward, params, other, width=1e-1)
        assert -along(gradient, other) == pytest.approx(slope, abs=0.05 * norm)


def test_equal_rewards_give_no_gradient():
    params = sharp_params(seed=3)
    gradient, metrics = one_step(params, PLAIN, worth=np.full((2, 6), 0.3, np.float32))
    assert metrics["gradient_norm"] == 0
    assert all((array == 0).all() for array in jax.tree.leaves(gradient))


def test_the_divergence_is_that_of_whole_sids():
    """The mean over draws of the levels' sums, by the chain rule that of the distributions."""
    params, reference = sharp_params(seed=3), sharp_params(seed=4)
    gradient, metrics = one_step(
        *(params, dataclasses.replace(PLAIN, kl=0.5)),
        worth=np.full((2, 6), 0.3, np.float32),
        reference=reference,
    )
    own, other = policy(params)[0], policy(reference)[0]
    exact = float((own * np.log(own / other)).sum(axis=1).mean())
    assert exact > 0.3
    assert metrics["kl"] == pytest.approx(exact, rel=0.1)
    assert metrics["loss"] == pytest.approx(0.5 * metrics["kl"], rel=1e-5)
    _, closer = one_step(
        moved(params, gradient, -0.1),
        *(PLAIN,),
        reference=reference,
    )
    assert closer["kl"] < metrics["kl"]
    _, same = one_step(params, dataclasses.replace(PLAIN, kl=0.5), reference=params)
    assert same["kl"] == pytest.approx(0, abs=1e-6)


def test_two_small_updates_by_the_same_draws_are_one_of_twice_the_size():
    params, small = sharp_params(seed=3), optax.sgd(1e-2)
    once, _ = one_step(params, PLAIN, optimizer=small)
    twice, _ = one_step(params, dataclasses.replace(PLAIN, updates=2), optimizer=small)
    difference = jax.tree.map(lambda both, one: both - 2 * one, twice, once)
    assert optax.tree.norm(difference) < 0.05 * optax.tree.norm(twice)


def some_queries(number=16, *, known=1, seed=0):
    rng = np.random.default_rng(seed)
    return RewardedQueries(
        numbers=np.arange(number, dtype=np.int32),
        pieces=[rng.integers(1, 12, 3).tolist() for _ in range(number)],
        sids=EXISTING[rng.integers(0, 6, (number, known))],
        rewards=np.ones((number, known), np.float32),
    )


ALIGNMENT = Alignment(
    reward=JudgedGains(),
    training=dataclasses.replace(TRAINING, epochs=4, checkpoint_every=3),
    samples=4,
    experts=1,
    updates=2,
)


def run(directory, *, config=CONFIG, alignment=ALIGNMENT, queries=None, number=1, **more):
    queries = queries or some_queries()
    return align(
        config=config,
        alignment=alignment,
        params=more.pop("params", None) or sharp_params(config, seed=5),
        trie=TRIE,
        queries=queries,
        held_out=np.arange(len(queries)) % 4 == 0,
        max_pieces=4,
        directory=directory,
        seed=0,
        devices=jax.devices()[:number],
        **more,
    )


def assert_near(tree, other):
    """To 1e-4 of the largest entry of each array."""
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def one_sid(sid=2):
    """Queries that differ, but for one SID, which is worth something to all."""
    queries = some_queries()
    sids = np.repeat(EXISTING[None, sid : sid + 1], len(queries), axis=0)
    return dataclasses.replace(queries, sids=sids)


def shares_of(params):
    """What the policy gives to each SID, in the mean over the queries."""
    tokens = np.array([[*pieces, 0] for pieces in some_queries().pieces], np.int32)
    return policy(params, tokens=tokens)[0].mean(axis=0)


def test_what_is_rewarded_becomes_probable(tmp_path):
    params = sharp_params(seed=5)
    alignment = dataclasses.replace(
        ALIGNMENT, experts=0, samples=16, training=dataclasses.replace(TRAINING, epochs=30)
    )
    aligned = run(tmp_path, alignment=alignment, queries=one_sid())
    assert aligned.is_better and aligned.after > aligned.before
    before, after = (shares_of(of)[2] for of in (params, aligned.params))
    assert before < 0.5 < 0.8 < after


@pytest.mark.slow
def test_experts_teach_what_is_never_drawn(tmp_path):
    params = jax.tree.map(lambda array: 2 * array, sharp_params(seed=5))
    before = shares_of(params)
    rarest, after = int(before.argmin()), {}
    assert before[rarest] < 2e-3
    for experts in (0, 1):
        training = dataclasses.replace(TRAINING, epochs=20)
        alignment = dataclasses.replace(ALIGNMENT, experts=experts, samples=2, training=training)
        more = {"queries": one_sid(rarest), "params": params}
        found = run(tmp_path / str(experts), alignment=alignment, **more)
        after[experts] = shares_of(found.params)[rarest]
    assert after[1] > 10 * max(after[0], before[rarest])


def test_one_that_is_no_better_is_not_taken(tmp_path):
    still = dataclasses.replace(TRAINING, learning_rate=0.0)
    params = sharp_params(seed=5)
    found = run(tmp_path, alignment=dataclasses.replace(ALIGNMENT, training=still), params=params)
    assert not found.is_better and found.after == found.before
    jax.tree.map(np.testing.assert_array_equal, found.params, jax.device_get(params))


def test_without_queries_to_measure_by_it_says_what_to_bind(tmp_path):
    with pytest.raises(InputError, match="1 queries with rewards, 1 of them held out; bind Train"):
        run(tmp_path, queries=some_queries(1))


@pytest.mark.slow
@pytest.mark.parametrize("model_parallel", [1, 2], ids=["data 8", "data 4 x model 2"])
def test_meshes_align_alike(tmp_path, model_parallel):
    """Were a single draw another one, the parameters would be far apart."""
    one = run(tmp_path / "one")
    start = jax.device_get(sharp_params(seed=5))
    apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), one.params, start)
    assert max(jax.tree.leaves(apart)) > 0.01
    many = run(tmp_path / "many", number=8, model_parallel=model_parallel)
    assert many.before == one.before and many.after == one.after
    assert_near(many.params, one.params)


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(tmp_path):
    whole = run(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole/checkpoints/3", tmp_path / "parts/checkpoints/3")
    parts = run(tmp_path / "parts")
    assert parts[1:] == whole[1:]
    jax.tree.map(np.testing.assert_array_equal, parts.params, whole.params)


@pytest.mark.slow
def test_of_adapters_the_frozen_weights_stay(tmp_path):
    config = Lora(config=CONFIG, rank=2)
    params = jax.device_get(init_params(config, seed=5))
    training = dataclasses.replace(TRAINING, epochs=20)
    alignment = dataclasses.replace(ALIGNMENT, training=training)
    found = run(*(tmp_path,), config=config, params=params, alignment=alignment, queries=one_sid())
    assert found.is_better
    jax.tree.map(np.testing.assert_array_equal, found.params[TEXT], params[TEXT])
    learnt = {part: found.params[part] for part in (CODES, ADAPTERS)}
    moved = jax.tree.map(
        lambda new, old: np.abs(new - old).max() > 1e-3,
        learnt,
        {part: params[part] for part in learnt},
    )
    assert not moved[CODES].pop("codes_2")  # nothing is read behind a last code
    assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 1}, "Alignment.samples is 1; bind a whole number of at least 2"),
        ({"clip": 0.0}, "Alignment.clip is 0.0; bind a number above 0"),
        ({"kl": float("nan")}, "Alignment.kl is nan"),
        ({"reward": "gain"}, "Alignment.reward is 'gain'; bind a kind of reward"),
        ({"training": dataclasses.replace(TRAINING, held_out=0.0)}, "a share held_out above 0"),
    ],
    ids=["one sample", "no clip", "NaN", "no reward", "nothing held out"],
)
def test_settings_that_cannot_be_are_named(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(ALIGNMENT, **change)
