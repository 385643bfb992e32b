"""Labelled pairs as heads are fitted to them."""

from pathlib import Path

import numpy as np

from dsirm_jax.relevance.heads.head import Fitting
from dsirm_jax.relevance.pairs import LabelledPairs
from dsirm_jax.training.settings import Training

TRAINING = Training(epochs=2, batch_size=64, learning_rate=1e-2)
FITTING = Fitting(name="head", training=TRAINING, directory=Path("nowhere"), seed=0)
"""Of heads that write nothing."""


def labelled(features, classes, *, grades, weights=None, queries=None):
    """Returns pairs of some grades, of which the upper half is relevant."""
    relevant = np.arange(grades) >= grades / 2
    classes = np.asarray(classes, np.int32)
    count = len(classes)
    return LabelledPairs(
        features=np.asarray(features, np.float32),
        labels=relevant[classes],
        grades=classes,
        gains=(classes / max(grades - 1, 1)).astype(np.float32),
        weights=np.asarray(np.ones(count) if weights is None else weights, np.float32),
        queries=np.asarray(np.arange(count) // 5 if queries is None else queries, np.int32),
        relevant=tuple(relevant.tolist()),
    )
