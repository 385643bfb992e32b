"""Alignment and prediction: losses by hand, and what they do to a fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.optimize import check_grad
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer import losses
from dsirm_jax.quantizer.assign import assign_vectors
from dsirm_jax.quantizer.fitting import train
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.quantizer.model import Codebook, encode, residual_quantize
from dsirm_jax.quantizer.prediction import CLASSIFIERS, first_classifiers
from dsirm_jax.quantizer.resident import gathered, table_feed
from dsirm_jax.quantizer.training_items import UNKNOWN, batches_of
from dsirm_jax.quantizer.training_tables import read_training_items
from tests.quantizer.fitting_test import CONFIG, make_items, settings
from tests.quantizer.fitting_test import TRAINING as FEW_EPOCHS


def with_attributes(*, pinned=True):
    """Items of four groups: the first attribute is the group, the second half unknown."""
    items = make_items(pinned=pinned)
    rng = np.random.default_rng(1)
    group = make_items().pinned
    other = np.where(rng.random(len(group)) < 0.5, UNKNOWN, rng.integers(0, 3, len(group)))
    attributes = np.stack([group, other], axis=1).astype("i4")
    return dataclasses.replace(items, attributes=attributes)


def fit(directory, *, items=None, devices=1, epochs=4.0, kind=None, **objective):
    config = CONFIG if kind is None else dataclasses.replace(CONFIG, kind=kind)
    return train(
        config=config,
        **settings(objective=objective),
        training=dataclasses.replace(FEW_EPOCHS, epochs=epochs),
        items=with_attributes() if items is None else items,
        directory=directory,
        seed=3,
        devices=jax.devices()[:devices],
    )


def test_alignment_is_the_divergence_of_softmaxes_over_squared_distances():
    rng = np.random.default_rng(0)
    words = rng.normal(size=(5, 3)).astype("f4")
    query, item = rng.normal(size=(2, 4, 3)).astype("f4")
    book = Codebook(codewords=words, count=np.ones(5, "f4"), total=words)
    node = jnp.zeros(4, jnp.int32)
    costs = [book.costs(jnp.asarray(side), node) for side in (query, item)]
    found = losses.alignment_loss(*costs, temperature=0.7)
    squares = [((side[:, None] - words) ** 2).sum(axis=-1) for side in (query, item)]
    learner, teacher = (softmax(-square / 0.7, axis=1) for square in squares)
    np.testing.assert_allclose(found, entropy(teacher, learner, axis=1), rtol=1e-4)
    same = losses.alignment_loss(costs[0], costs[0], temperature=0.7)
    np.testing.assert_allclose(same, 0, atol=1e-6)


def test_alignment_teaches_the_query_and_not_the_item():
    rng = np.random.default_rng(1)
    query, item = rng.normal(size=(2, 1, 4))

    def loss(query, item):
        return losses.alignment_loss(query, item, temperature=0.5)[0]

    with jax.enable_x64(True):
        of_query, of_item = jax.grad(loss, argnums=(0, 1))(jnp.asarray(query), jnp.asarray(item))
        np.testing.assert_array_equal(of_item, 0)

        def value(flat):
            return float(loss(jnp.asarray(flat.reshape(1, 4)), jnp.asarray(item)))

        def slope(flat):
            return np.asarray(jax.grad(loss)(jnp.asarray(flat.reshape(1, 4)), jnp.asarray(item)))[0]

        assert check_grad(value, slope, query.ravel()) < 1e-5
        assert np.abs(of_query).max() > 0


def test_prediction_is_the_cross_entropy_of_what_is_known():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(3, 2, 4)).astype("f4")  # [row, level, class]
    classes = np.array([3, UNKNOWN, 0])
    found = losses.prediction_loss(jnp.asarray(logits), jnp.asarray(classes))
    log_probs = log_softmax(logits.astype("f8"), axis=-1)
    by_hand = [-log_probs[0, :, 3].mean(), 0.0, -log_probs[2, :, 0].mean()]
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)


def test_classifiers_start_without_an_opinion():
    start = first_classifiers([4, 0], levels=3, width=6)
    assert {name: of["kernel"].shape for name, of in start.items()} == {
        "0": (3, 6, 4),
        "1": (3, 6, 1),  # an attribute that no item has
    }
    logits = jnp.zeros((1, 3, 4)) + start["0"]["bias"]
    loss = losses.prediction_loss(logits, jnp.array([2]))
    np.testing.assert_allclose(loss, np.log(4), rtol=1e-6)


def told(fitted, items):
    """How much of an attribute the first prefix tells, by the nearest mean of its classes."""
    latents = encode(fitted.model, fitted.params, items.items)
    prefix = np.asarray(residual_quantize(latents, fitted.codebooks).prefixes[:, 0])
    group = items.attributes[:, 0]
    known = group >= 0
    means = np.stack([prefix[group == number].mean(axis=0) for number in range(4)])
    nearest = ((prefix[:, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
    return np.mean(nearest[known] == group[known])


def test_classifiers_are_learnt_along_and_not_kept(tmp_path):
    items = with_attributes(pinned=False)
    # A vector of noise, in which the group is one small direction.
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(12, 12)))[0][:, :4]
    group = rng.integers(0, 4, len(items.items))
    vectors = rng.normal(size=items.items.shape) + 1.5 * axes.T[group]
    attributes = np.stack([group, group], axis=1).astype("i4")
    items = dataclasses.replace(items, items=vectors.astype("f4"), attributes=attributes)
    shared = {"items": items, "contrastive": 0.0, "epochs": 60.0}
    plain = fit(tmp_path / "plain", **shared, prediction=0.0)
    taught = fit(tmp_path / "taught", **shared, prediction=3.0)
    assert CLASSIFIERS not in taught.params
    assert jax.tree.structure(taught.params) == jax.tree.structure(plain.params)
    assert told(taught, items) > told(plain, items) + 0.1


def test_weights_of_nothing_leave_a_fit_as_it_was(tmp_path):
    before = fit(tmp_path / "before", items=make_items())
    with_none = fit(tmp_path / "none", items=make_items(), alignment=0.0, prediction=0.0)
    assert before.version == with_none.version
    kmeans = [
        fit(tmp_path / name, items=items, kind=ResidualKmeans(), prediction=prediction)
        for name, items, prediction in (
            ("kmeans", make_items(), 0.0),
            ("kmeans with attributes", with_attributes(), 1.0),
        )
    ]
    assert kmeans[0].version == kmeans[1].version  # it has no such term


def test_alignment_brings_query_and_item_together(tmp_path):
    items = make_items(pinned=False)
    rng = np.random.default_rng(0)
    turned = (items.queries @ np.linalg.qr(rng.normal(size=(12, 12)))[0]).astype("f4")
    items = dataclasses.replace(items, queries=turned)  # unlike their items
    agreement = []
    for alignment in (0.0, 2.0):
        shared = {"items": items, "contrastive": 0.0, "epochs": 60.0, "temperature": 0.5}
        fitted = fit(tmp_path / f"{alignment}", **shared, alignment=alignment)
        query, item = (
            assign_vectors(fitted=fitted, vectors=of).codes[pairs]
            for of, pairs in zip((items.queries, items.items), items.pairs.T, strict=True)
        )
        agreement.append(np.mean(query[:, 0] == item[:, 0]))
    assert agreement[1] > agreement[0] + 0.1


@pytest.mark.parametrize("devices", [2, 8])
def test_terms_do_not_depend_on_the_devices(tmp_path, devices):
    weights = {"alignment": 0.3, "prediction": 0.5}
    one = fit(tmp_path / "one", **weights)
    many = fit(tmp_path / "many", **weights, devices=devices)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4),
        (one.params, one.codebooks),
        (many.params, many.codebooks),
    )


def test_a_device_gathers_the_attributes_of_the_host():
    items = with_attributes()
    host = batches_of(items, rows=items.rows(), batch_size=32, seed=3)(0)
    feed = table_feed(
        items,
        rows=items.rows(),
        batch_size=32,
        seed=3,
        devices=jax.devices()[:1],
        room=10**9,
    )
    (tables, rows) = next(iter(feed.placed([1], start=0)))
    expected = next(host)["attributes"]
    assert expected.shape == (32, 2)
    np.testing.assert_array_equal(np.asarray(gathered(tables, rows[0])["attributes"])[0], expected)


def test_attributes_have_to_be_there(tmp_path):
    with pytest.raises(InputError, match=r"prediction is 1.0, but TrainingItems.attributes is N"):
        fit(tmp_path, items=make_items(), prediction=1.0)
    wrong = np.zeros((3, 2), "i4")
    with pytest.raises(InputError, match=r"attributes has the shape \(3, 2\); pass \[96, attrib"):
        dataclasses.replace(make_items(), attributes=wrong)
    with pytest.raises(InputError, match=r"attributes is 'brand'; bind names of attributes"):
        losses.QuantizerObjective(attributes="brand")


def test_classes_are_numbered_by_how_many_items_have_them(tmp_path):
    names = ["item_id", "title", "brand", "category", "text"]
    rows = [
        ("a", "Acme mug, 350 ml", "Acme", ["home", "Mugs"], ""),
        ("b", "Zed lamp", "Zed", None, ""),
        ("c", "Zed mug", "Zed", ["home", "Mugs"], ""),
        ("d", "thing", None, None, ""),
    ]
    types = pa.schema([*((name, pa.string()) for name in names)])
    types = types.set(3, pa.field("category", pa.list_(pa.string())))
    paths = {name: tmp_path / f"{name}.parquet" for name in ("items", "queries", "judgements")}
    pq.write_table(
        pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], types),
        paths["items"],
    )
    pq.write_table(pa.table({"query": ["mug"]}), paths["queries"])
    judged = {"query_index": [0], "item_index": [0], "relevant": [True], "split": ["train"]}
    pq.write_table(pa.table(judged), paths["judgements"])
    vectors = pa.array(np.eye(4, dtype="f4").tolist(), pa.list_(pa.float32()))
    for name, ids in (("item_id", list("abcd")), ("query", ["mug"])):
        table = pa.table({name: ids, "vector": vectors[: len(ids)]})
        pq.write_table(table, tmp_path / f"{name}-0-of-1.parquet")
    items = read_training_items(
        **paths,
        item_vectors=tmp_path / "item_id-0-of-1.parquet",
        query_vectors=tmp_path / "query-0-of-1.parquet",
        config=dataclasses.replace(CONFIG, pin_depth=0, title_language="en"),
        scratch=tmp_path,
        attributes=("type", "brand", "size"),
    )
    # Types: Mugs, twice; lamp; thing. Brands: Zed, twice; Acme. A size of one item.
    expected = [[0, 1, 0], [1, 0, -1], [0, 0, -1], [2, -1, -1]]
    np.testing.assert_array_equal(items.attributes, expected)
