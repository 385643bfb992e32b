import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import logsumexp

from dsirm_jax.encoder.losses import QueryItemRows
from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer import losses
from dsirm_jax.quantizer.model import Codebook, residual_quantize, straight_through


def test_reconstruction_is_the_squared_distance():
    vectors, decoded = jnp.array([[1.0, 2.0], [0.0, 0.0]]), jnp.array([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(losses.reconstruction_loss(vectors, decoded), [5.0, 25.0])


def test_commitment_sums_the_distance_to_the_codeword_over_levels():
    residuals = jnp.array([[[3.0, 0.0], [1.0, 0.0]]])  # codewords (2, 0) and (1, 1)
    prefixes = jnp.array([[[2.0, 0.0], [3.0, 1.0]]])
    np.testing.assert_allclose(losses.commitment_loss(residuals, prefixes), [1.0 + 1.0])


def make_pairs(rows=5, dim=4, seed=0):
    rng = np.random.default_rng(seed)
    return QueryItemRows(
        query=rng.normal(size=(rows, dim)).astype("f4"),
        item=rng.normal(size=(rows, dim)).astype("f4"),
        item_index=np.array([10, 11, 12, 10, 13]),
        # Row 1's query is also answered by item 12; rows 0 and 3 are one query and one item.
        positives=np.array([[10, -1], [11, 12], [12, -1], [10, -1], [-1, -1]]),
        has_query=np.array([1.0, 1.0, 1.0, 1.0, 0.0], "f4"),
    )


def reference_contrastive(pairs, temperature):
    """A loop over rows and candidates, written from the definition."""
    unit_q = pairs.query / np.linalg.norm(pairs.query, axis=1, keepdims=True)
    unit_i = pairs.item / np.linalg.norm(pairs.item, axis=1, keepdims=True)
    rows, rows_losses = len(unit_q), []
    for row in range(rows):
        if not pairs.has_query[row]:
            rows_losses.append(0.0)
            continue
        to_items, to_queries = [], []
        for other in range(rows):
            if other == row or pairs.item_index[other] not in pairs.positives[row]:
                to_items.append(unit_q[row] @ unit_i[other] / temperature)
            is_negative = pairs.item_index[row] not in pairs.positives[other]
            if other == row or (is_negative and pairs.has_query[other]):
                to_queries.append(unit_i[row] @ unit_q[other] / temperature)
        own = unit_q[row] @ unit_i[row] / temperature
        rows_losses.append(0.5 * (logsumexp(to_items) + logsumexp(to_queries)) - own)
    return rows_losses


def test_contrastive_equals_a_loop_over_rows_with_masks():
    pairs = make_pairs()
    rows_losses = losses.contrastive_loss(pairs, pairs, own=jnp.arange(5), temperature=0.2)
    np.testing.assert_allclose(rows_losses, reference_contrastive(pairs, 0.2), rtol=1e-5)


@pytest.mark.parametrize("name", ["item", "query"])
def test_contrastive_gradient_equals_finite_differences(name):
    with jax.enable_x64(True):
        pairs = jax.tree.map(
            lambda a: np.asarray(a, "f8" if a.dtype == "f4" else "i8"), make_pairs()
        )

        def loss(flat):
            changed = pairs.replace(**{name: jnp.reshape(flat, (5, 4))})
            return jnp.mean(
                losses.contrastive_loss(changed, changed, own=jnp.arange(5), temperature=0.2)
            )

        at = np.ravel(getattr(pairs, name))
        error = check_grad(lambda x: float(loss(x)), lambda x: np.asarray(jax.grad(loss)(x)), at)
        assert error < 1e-5


def test_a_row_without_a_query_gives_no_gradient_through_a_zero_vector():
    pairs = make_pairs()
    pairs.query[4] = 0.0

    def loss(query):
        changed = pairs.replace(query=query)
        return jnp.sum(
            losses.contrastive_loss(changed, changed, own=jnp.arange(5), temperature=0.2)
        )

    gradient = jax.grad(loss)(pairs.query)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[4], 0.0)


def test_gradients_pass_straight_through_the_codes_and_never_reach_the_codewords():
    codebooks = tuple(
        Codebook(
            codewords=jnp.eye(3)[: 2 + level],
            count=jnp.ones(2 + level),
            total=jnp.eye(3)[: 2 + level],
        )
        for level in range(2)
    )
    target = jnp.array([[0.3, -0.2, 0.5]])

    def loss(latents, codebooks):
        quantized = residual_quantize(latents, codebooks).prefixes[:, -1]
        return jnp.sum(straight_through(latents, quantized) * target)

    latents = jnp.array([[0.9, 0.1, 0.4]])
    to_latents, to_codebooks = jax.grad(loss, argnums=(0, 1))(latents, codebooks)
    np.testing.assert_allclose(to_latents, target)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(to_codebooks))


def coded(*, vectors, residuals, prefixes, decoded):
    arrays = {"vectors": vectors, "residuals": residuals, "prefixes": prefixes, "decoded": decoded}
    arrays = {name: jnp.array(array, jnp.float32) for name, array in arrays.items()}
    return losses.Coded(**arrays, quantized=arrays["prefixes"][:, -1])


def two_rows():
    """Returns two items, the first with a query, with numbers that can be followed by hand."""
    return {
        "item": coded(
            vectors=[[1, 2], [0, 1]],
            decoded=[[1, 1], [2, 1]],  # reconstruction 1 and 4
            residuals=[[[1, 0]], [[0, 4]]],
            prefixes=[[[2, 0]], [[0, 1]]],  # commitment 1 and 9
        ),
        "query": coded(
            vectors=[[3, 0], [9, 9]],
            decoded=[[0, 0], [0, 0]],  # reconstruction 9; the second is no query
            residuals=[[[0, 2]], [[7, 7]]],
            prefixes=[[[0, 4]], [[1, 0]]],  # commitment 4
        ),
        "has_query": jnp.array([1.0, 0.0]),
        "item_index": jnp.array([5, 6]),
        "positives": jnp.array([[5], [-1]]),
    }


def test_the_loss_is_the_weighted_sum_of_its_terms_by_hand():
    objective = losses.QuantizerObjective(commitment=0.3, contrastive=2.0, temperature=0.5)
    terms = losses.loss_terms(**two_rows(), objective=objective)
    np.testing.assert_allclose(terms["reconstruction"], 14 / 3, rtol=1e-6)
    np.testing.assert_allclose(terms["commitment"], 14 / 3, rtol=1e-6)
    # The query (0, 4) has cosine 0 with its item (2, 0) and 1 with the other (0, 1): its item gets
    # 1 / (1 + e²) of the softmax. The item sees no query but its own, which costs nothing.
    contrastive = 0.5 * np.log(1 + np.exp(1 / 0.5))
    np.testing.assert_allclose(terms["contrastive"], contrastive, rtol=1e-6)
    np.testing.assert_allclose(terms["loss"], 1.3 * 14 / 3 + 2 * contrastive, rtol=1e-6)


def test_a_batch_without_queries_has_the_loss_of_its_items():
    batch = two_rows() | {"has_query": jnp.zeros(2), "positives": jnp.full((2, 1), -1)}
    terms = losses.loss_terms(**batch, objective=losses.QuantizerObjective())
    assert {name: float(value) for name, value in terms.items()} == {
        "loss": 7.5,
        "reconstruction": 2.5,
        "commitment": 5.0,
        "contrastive": 0.0,
    }


@pytest.mark.parametrize("devices", [2, 4])
def test_shares_of_the_loss_add_up_over_devices(devices):
    rng = np.random.default_rng(1)

    def random_codes():
        return coded(
            vectors=rng.normal(size=(8, 3)),
            decoded=rng.normal(size=(8, 3)),
            residuals=rng.normal(size=(8, 2, 4)),
            prefixes=rng.normal(size=(8, 2, 4)),
        )

    batch = {
        "item": random_codes(),
        "query": random_codes(),
        "has_query": jnp.array([1, 1, 0, 1, 1, 0, 0, 1.0]),
        "item_index": jnp.array([1, 2, 3, 1, 4, 5, 6, 7]),
        "positives": jnp.array([[1], [2], [-1], [1], [4], [-1], [-1], [7]]),
    }
    objective = losses.QuantizerObjective()
    whole = losses.loss_terms(**batch, objective=objective)
    split = jax.tree.map(lambda array: array.reshape(devices, -1, *array.shape[1:]), batch)
    shares = jax.pmap(
        lambda part: losses.loss_terms(**part, objective=objective, axis="data"),
        axis_name="data",
        devices=jax.devices()[:devices],
    )(split)
    for name, value in whole.items():
        np.testing.assert_allclose(np.sum(shares[name]), value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("commitment", (-1, np.nan, np.inf, None)),
        ("contrastive", (-0.1, np.nan)),
        ("temperature", (0, -0.1, np.nan)),
    ],
    ids=["commitment", "contrastive", "temperature"],
)
def test_an_objective_that_cannot_be_is_refused(name, values):
    for value in values:
        with pytest.raises(InputError, match=rf"binding QuantizerObjective.{name} is .*; bind a "):
            losses.QuantizerObjective(**{name: value})
