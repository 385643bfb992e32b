import jax
import jax.numpy as jnp
import numpy as np

from dsirm_jax.encoder.losses import info_nce

ROWS, DIM, TEMPERATURE = 12, 5, 0.3


def _case():
    generator = np.random.Generator(np.random.Philox(key=3))
    anchors, candidates = generator.normal(size=(2, ROWS, DIM)).astype(np.float32)
    own = generator.permutation(ROWS)
    excluded = generator.random((ROWS, ROWS)) < 0.3  # some rows exclude their own
    return anchors, candidates, own, excluded


def _loss(anchors, candidates, own, excluded):
    return info_nce(
        anchors, candidates, own=jnp.asarray(own), excluded=excluded, temperature=TEMPERATURE
    )


def test_info_nce_and_its_gradient_are_those_of_the_formula():
    anchors, candidates, own, excluded = _case()
    a, c = (x.astype(float) for x in (anchors, candidates))
    lengths = [np.linalg.norm(x, axis=1, keepdims=True) for x in (a, c)]
    a, c = a / lengths[0], c / lengths[1]
    is_own = np.arange(ROWS) == own[:, None]
    weights = np.where(excluded & ~is_own, 0.0, np.exp(a @ c.T / TEMPERATURE))
    shares = weights / weights.sum(axis=1, keepdims=True)
    logits = (shares - is_own) / TEMPERATURE  # the gradient to the cosines
    expected = []
    for unit, length, other in ((a, lengths[0], logits @ c), (c, lengths[1], logits.T @ a)):
        along = np.sum(other * unit, axis=1, keepdims=True) * unit  # lengths count for nothing
        expected.append((other - along) / length)

    loss = _loss(anchors, candidates, own, excluded)
    gradients = jax.grad(lambda *x: _loss(*x, own, excluded).sum(), argnums=(0, 1))(
        anchors, candidates
    )

    np.testing.assert_allclose(loss, -np.log(shares[is_own]), rtol=1e-5)
    for found, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_no_pair_is_gathered_or_scattered():
    anchors, candidates, own, excluded = _case()

    gradient = jax.grad(lambda *x: _loss(*x, own, excluded).sum(), argnums=(0, 1))
    program = jax.jit(gradient).lower(anchors, candidates).as_text()

    assert "stablehlo.gather" not in program
    assert "stablehlo.scatter" not in program
    assert "stablehlo.optimization_barrier" in program  # around what is excluded
