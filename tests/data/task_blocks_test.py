import numpy as np

from dsirm_jax.data.task_blocks import mixture_rows, narrowed


def test_counts_of_a_mixture_of_three_never_fall_and_follow_the_rates():
    rates = (0.5, 0.1, 0.4)
    counts = [[mixture_rows(p, task=task, rates=rates) for task in range(3)] for p in range(500)]
    for position, now in enumerate(counts):
        assert sum(now) == position
        assert all(abs(n - position * rate) <= 2 for n, rate in zip(now, rates, strict=True))
    assert (np.diff(counts, axis=0) >= 0).all()


def test_kept_rows_are_narrow_and_come_back_as_they_were():
    rows = {
        "small": np.array([0, 255], np.int32),
        "large": np.array([[7], [70_000]], np.int64),
        "signed": np.array([-1, 3], np.int32),
        "weight": np.array([0.5, 2.0], np.float32),
    }
    found = narrowed(rows)
    assert [values.dtype for values, _ in found.values()] == ["u1", "u4", "i4", "f4"]
    for name, (values, type_) in found.items():
        np.testing.assert_array_equal(values.astype(type_), rows[name], strict=True)
