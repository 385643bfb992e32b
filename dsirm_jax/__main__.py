"""`python -m dsirm_jax`."""

import sys

from dsirm_jax.cli import main

sys.exit(main())
