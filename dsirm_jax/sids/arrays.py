"""What functions take that compute on the host and on a device alike."""

import jax
import numpy as np

AnyArray = jax.Array | np.ndarray
