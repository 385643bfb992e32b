"""One finished run of the tiny job for all tests."""

import pytest

from tests.job.tiny import dsirm


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("run")
    return model_dir, dsirm("run", model_dir)
