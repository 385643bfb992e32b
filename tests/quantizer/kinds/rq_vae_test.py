import dataclasses

import jax
import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer.kinds.rq_vae import RqVae, principal_start
from tests.quantizer.fitting_test import KIND, make_items


@pytest.mark.parametrize("width", [2, 12, 15])
def test_the_start_is_the_best_linear_code_of_its_width(width):
    vectors = make_items().items
    model = dataclasses.replace(KIND, latent_dim=width).module(dim=12)
    params = principal_start(model.init(jax.random.key(0), vectors), vectors)
    values = np.linalg.svd(vectors, compute_uv=False)
    error = np.sum((vectors - model.apply(params, vectors)) ** 2)
    np.testing.assert_allclose(error, np.sum(values[width:] ** 2), rtol=1e-3, atol=1e-3)
    latents = model.apply(params, vectors, method="encode")
    assert latents.shape == (len(vectors), width)


@pytest.mark.parametrize("name", ["latent_dim", "hidden_dim"])
@pytest.mark.parametrize("value", [0, -1, 2.5, None])
def test_a_width_that_cannot_be_is_refused(name, value):
    with pytest.raises(InputError, match=rf"gin binding RqVae.{name} is .*; bind a whole number"):
        RqVae(**{"latent_dim": 4, "hidden_dim": 4} | {name: value})
