import dataclasses

import jax
import numpy as np
import optax
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.metrics.codebook import code_counts, utilisation
from dsirm_jax.quantizer.assign import assign_vectors
from dsirm_jax.quantizer.batchwise import initial_state
from dsirm_jax.quantizer.codebooks import Upkeep
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.fitting import train
from dsirm_jax.quantizer.kinds.hierarchical_kmeans import HierarchicalKmeans
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.quantizer.kinds.rq_vae import RqVae, make_step
from dsirm_jax.quantizer.learning import Learning
from dsirm_jax.quantizer.losses import QuantizerObjective
from dsirm_jax.quantizer.model import UNPINNED
from dsirm_jax.quantizer.training_items import TrainingItems, batches_of
from dsirm_jax.training.meshes import pmapped
from dsirm_jax.training.settings import Training

SIZES = (4, 8, 8)
KIND = RqVae(latent_dim=6, hidden_dim=16)
CONFIG = QuantizerConfig(codebook_sizes=SIZES, pin_depth=1, kind=KIND)
TRAINING = Training(epochs=4, batch_size=32, learning_rate=3e-3, log_every=5)


def make_items(*, pinned=True, items=96, queries=24, dim=12, seed=0):
    rng = np.random.default_rng(seed)
    category = rng.integers(0, SIZES[0], items)
    centres = rng.normal(size=(SIZES[0], dim))
    vectors = (centres[category] + 0.4 * rng.normal(size=(items, dim))).astype(np.float32)
    answers = rng.integers(0, items, (queries, 2))
    query_vectors = (vectors[answers[:, 0]] + 0.1 * rng.normal(size=(queries, dim))).astype("f4")
    pairs = np.concatenate([np.stack([np.arange(queries), answers[:, i]], 1) for i in range(2)])
    codes = np.where(rng.random(items) < 0.2, UNPINNED, category).astype(np.int32)
    return TrainingItems(
        items=vectors,
        queries=query_vectors,
        pairs=np.unique(pairs, axis=0),
        pinned=codes if pinned else None,
        names=tuple("abcd") if pinned else (),
    )


def fit_quantizer(directory, *, devices=1, seed=3, pinned=True, contrastive=0.5, epochs=4.0):
    return train(
        config=dataclasses.replace(CONFIG, pin_depth=int(pinned)),
        objective=QuantizerObjective(commitment=1.0, contrastive=contrastive, temperature=0.1),
        upkeep=Upkeep(decay=0.9, restart_below=0.1, init_rows=96, init_iterations=3),
        training=Training(epochs=epochs, batch_size=32, learning_rate=3e-3, log_every=5),
        items=make_items(pinned=pinned),
        directory=directory,
        seed=seed,
        devices=jax.devices()[:devices],
    )


def settings(**changed):
    """Returns keyword arguments of `train` that the tests of its parts need."""
    objective = QuantizerObjective(commitment=1.0, contrastive=0.5, temperature=0.1)
    upkeep = Upkeep(decay=0.9, restart_below=0.1, init_rows=96, init_iterations=3)
    return {
        "objective": dataclasses.replace(objective, **changed.pop("objective", {})),
        "upkeep": dataclasses.replace(upkeep, **changed.pop("upkeep", {})),
    }


def one_step(*, change=lambda batch: None, devices=1, **changed):
    """Returns the state before and after the first step, and its terms."""
    items, devices = make_items(), jax.devices()[:devices]
    learner, optimizer = KIND.learner(dim=12), optax.adam(1e-3)
    chosen = settings(**changed)
    learning = Learning(**chosen, training=TRAINING, seed=0, devices=tuple(devices))
    state = initial_state(
        learner, items=items, sizes=SIZES, upkeep=chosen["upkeep"], optimizer=optimizer, seed=0
    )
    batches = batches_of(items, rows=items.rows(), batch_size=32, seed=0)
    batch = next(batches(0))
    change(batch)
    before, placement = jax.device_get(state), pmapped(devices)
    step = make_step(module=learner.module, optimizer=optimizer, learning=learning, pinned=True)
    after, terms = step(placement.put_state(before), placement.put_batch(batch))
    terms = {name: float(np.asarray(value)[0]) for name, value in terms.items()}
    return before, placement.get_state(after), terms


@pytest.mark.parametrize("pinned", [True, False])
def test_eight_devices_give_the_result_of_one(tmp_path, pinned):
    one = fit_quantizer(tmp_path / "one", devices=1, pinned=pinned)
    eight = fit_quantizer(tmp_path / "eight", devices=8, pinned=pinned)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        (one.params, one.codebooks),
        (eight.params, eight.codebooks),
    )


@pytest.mark.parametrize(
    ("changed", "counts"),
    [({}, (1, 2, 4, 8)), ({"objective": {"contrastive": 0.0}}, (1, 2, 4, 8))],
    ids=["contrastive", "unsupervised"],
)
def test_a_step_does_not_depend_on_the_number_of_devices(changed, counts):
    _, states, terms_by_count = zip(*(one_step(devices=devices, **changed) for devices in counts))
    levels = range(1, 4)
    assert set(terms_by_count[0]) == {
        *("loss", "reconstruction", "commitment", "contrastive", "restarts", "gradient_norm"),
        *(f"agreement_{level}" for level in levels),
        *(f"perplexity_{level}" for level in levels),
    }
    for terms in terms_by_count[1:]:
        for name, value in terms_by_count[0].items():
            np.testing.assert_allclose(terms[name], value, rtol=1e-5, err_msg=name)
    for state in states[1:]:
        # The optimizer's averages are those of the gradients.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            (states[0].opt_state, states[0].codebooks),
            (state.opt_state, state.codebooks),
        )


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path, start):
    first = start
    again = fit_quantizer(tmp_path / "b", epochs=1.0)
    other = fit_quantizer(tmp_path / "c", epochs=1.0, seed=4)
    jax.tree.map(
        np.testing.assert_array_equal,
        (first.params, first.codebooks),
        (again.params, again.codebooks),
    )
    assert first.version == again.version != other.version
    assert not np.array_equal(first.codebooks[1].codewords, other.codebooks[1].codewords)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_batch_that_is_not_finite_stops_the_run_before_its_step(tmp_path, value):
    items = make_items(pinned=False)
    items.items[[7, 40], 3] = value
    with pytest.raises(
        FloatingPointError,
        match=r"quantize: step [1-3] is refused .* item_index (7|40|7, 40) are not",
    ):
        train(
            config=dataclasses.replace(CONFIG, pin_depth=0),
            **settings(upkeep={"init_rows": 5}),
            training=TRAINING,
            items=items,
            directory=tmp_path,
            seed=0,
            devices=jax.devices()[:1],
        )
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_a_step_whose_loss_is_not_finite_changes_nothing():
    def spoil(batch):
        batch["item"][3, 2] = np.nan

    before, after, terms = one_step(change=spoil)
    assert np.isnan(terms["loss"])
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert int(one_step()[1].step) == 1


def test_agreement_is_the_share_of_pairs_whose_codes_agree_down_to_a_level():
    def same(batch):
        batch["query"][:] = batch["item"]
        batch["pinned"][:] = UNPINNED
        batch["has_query"][:] = 1.0

    terms = one_step(change=same)[2]
    assert [terms[f"agreement_{level}"] for level in (1, 2, 3)] == [1.0, 1.0, 1.0]

    def without_queries(batch):
        batch["has_query"][:] = 0.0

    terms = one_step(change=without_queries)[2]
    assert [terms[f"agreement_{level}"] for level in (1, 2, 3)] == [0.0, 0.0, 0.0]


def test_codes_collapse_and_every_remedy_alone_helps(tmp_path):
    items, sizes = make_items(pinned=False, items=600, queries=40), (32, 32)
    kind = dataclasses.replace(KIND, latent_dim=12)
    config = dataclasses.replace(CONFIG, codebook_sizes=sizes, pin_depth=0, kind=kind)

    def used(name, **remedy):
        none = {"restart_below": 0.0, "init_rows": 0, "balance": 0.0}
        fitted = train(
            config=config,
            **settings(objective={"contrastive": 0.0}, upkeep=none | remedy),
            training=Training(epochs=20, batch_size=128, learning_rate=3e-3),
            items=items,
            directory=tmp_path / name,
            seed=0,
            devices=jax.devices()[:1],
        )
        codes = assign_vectors(fitted=fitted, vectors=items.items).codes
        return [utilisation(code_counts(codes[:, level], 32)) for level in range(2)]

    assert max(used("none")) < 0.4
    assert min(used("restart", restart_below=0.1)) > 0.9
    assert min(used("kmeans", init_rows=600, init_iterations=5)) > 0.6
    assert min(used("balance", balance=0.3)) > 0.9


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return fit_quantizer(tmp_path_factory.mktemp("start"), epochs=1.0)


def continue_quantizer(directory, start, *, items, epochs=2.0, **changed):
    return train(
        config=dataclasses.replace(CONFIG, **changed),
        **settings(),
        training=Training(epochs=epochs, batch_size=32, learning_rate=3e-3),
        items=items,
        directory=directory,
        seed=0,
        start=start,
        devices=jax.devices()[:1],
    )


def test_without_training_a_quantizer_stays_as_it_is(tmp_path, start):
    later = make_items(seed=1)
    frozen = continue_quantizer(tmp_path / "frozen", start, items=later, epochs=0)
    assert frozen.version == start.version
    trained = continue_quantizer(tmp_path / "trained", start, items=later)
    assert trained.version != start.version


def test_a_new_category_gets_a_code_at_the_mean_of_its_members(tmp_path, start):
    later = make_items(seed=1)
    later.pinned[:10] = 4
    later = dataclasses.replace(later, names=tuple("abcde"))
    grown = continue_quantizer(tmp_path / "grown", start, items=later, epochs=0)
    assert grown.sizes == (5, 8, 8)
    np.testing.assert_array_equal(grown.codebooks[0].codewords[:4], start.codebooks[0].codewords)
    latents = start.model.apply(start.params, later.items[:10], method="encode")
    np.testing.assert_allclose(
        grown.codebooks[0].codewords[4], np.mean(latents, axis=0), rtol=1e-5, atol=1e-6
    )
    codes = assign_vectors(fitted=grown, vectors=later.items, pinned=later.pinned).codes
    np.testing.assert_array_equal(codes[:10, 0], 4)


def test_a_quantizer_of_another_shape_is_refused(tmp_path, start):
    narrow = dataclasses.replace(KIND, latent_dim=5)
    with pytest.raises(InputError, match="bind the same QuantizerConfig, or no Job.previous"):
        continue_quantizer(tmp_path / "other", start, items=make_items(), kind=narrow)
    more_beams = continue_quantizer(
        tmp_path / "beams", start, items=make_items(), epochs=0, beams=4
    )
    assert more_beams.version != start.version


@pytest.mark.parametrize("kind", [KIND, ResidualKmeans(), HierarchicalKmeans()])
def test_one_item_is_enough(kind):
    items = TrainingItems(items=np.arange(4, dtype="f4")[None])
    fitted = train(
        config=QuantizerConfig(codebook_sizes=(3, 1), kind=kind),
        **settings(upkeep={"init_iterations": 1}),
        training=Training(epochs=2, batch_size=4, learning_rate=1e-3),
        items=items,
        devices=jax.devices()[:1],
    )
    assigned = assign_vectors(fitted=fitted, vectors=items.items)
    assert assigned.codes.shape == (1, 2) and np.isfinite(assigned.errors).all()


def test_a_pinned_code_beyond_the_first_level_is_refused():
    items = dataclasses.replace(make_items(), names=())
    items.pinned[3] = SIZES[0]
    with pytest.raises(InputError, match="pinned has the code 4, but the first level has 4: pass"):
        train(config=CONFIG, training=TRAINING, items=items)


def test_a_kind_that_does_not_continue_stays_as_it_is():
    config = QuantizerConfig(codebook_sizes=(4, 4), kind=HierarchicalKmeans())
    shared = {"config": config, "training": TRAINING, **settings()}
    start = train(items=make_items(pinned=False), **shared)
    later = train(items=make_items(pinned=False, seed=1), **shared, start=start)
    assert later.version == start.version
