"""Arrays in files, and in files that go when the array does."""

import os

import numpy as np
import pytest

from dsirm_jax.io import arrays
from dsirm_jax.io.errors import StorageError
from tests.io.files_test import no_file_above


def test_a_scratch_array_takes_its_room_and_leaves_no_file(tmp_path):
    array = arrays.scratch((3, 1000), np.float32, folder=tmp_path)
    array[1] = 2.0
    assert array.sum() == 2000.0
    assert (array.shape, array.dtype) == ((3, 1000), np.float32)
    assert os.listdir(tmp_path) == []


def test_one_of_no_rows(tmp_path):
    assert arrays.scratch((0, 4), np.int32, folder=tmp_path).shape == (0, 4)


@pytest.mark.parametrize("supported", [True, False], ids=["allocated", "written"])
def test_one_that_does_not_fit_is_refused_before_it_is_written_to(tmp_path, monkeypatch, supported):
    def refused(*_):
        raise OSError(95, "Operation not supported")

    if not supported:
        monkeypatch.setattr(os, "posix_fallocate", refused)
    with (
        no_file_above(1 << 20),
        pytest.raises(StorageError, match=f"^{tmp_path}: File too large"),
    ):
        arrays.scratch((1 << 19,), np.float32, folder=tmp_path)
    assert arrays.scratch((1 << 19,), np.float32, folder=tmp_path).nbytes == 2 << 20
