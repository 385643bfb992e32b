"""The finished run that all tests of faults copy."""

from tests.job.conftest import run

__all__ = ["run"]
