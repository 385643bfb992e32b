import re

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from dsirm_jax.report import charts

finite = st.floats(-1e6, 1e6, allow_subnormal=False)


@settings(deadline=None, max_examples=60)
@given(values=st.lists(finite, min_size=1, max_size=5))
def test_values_lie_on_their_axis_and_ticks_are_even(values):
    axis = charts.axis(values, margin=0.1)
    assert all(-1e-6 <= axis.percent(value) <= 100 + 1e-6 for value in values)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 6
    assert np.ptp(np.diff(ticks)) <= 1e-6 * (axis.high - axis.low) if len(ticks) > 1 else True


def test_ticks_by_hand():
    assert charts.Axis(low=-0.013, high=0.047).ticks(about=3) == pytest.approx([0, 0.02, 0.04])
    assert charts.Axis(low=0, high=100).ticks(about=4) == [0, 50, 100]


def test_a_line_runs_from_corner_to_corner_with_high_values_on_top():
    axis = charts.Axis(low=0, high=10)
    line = charts.polyline([(0, 0), (5, 5), (10, 10)], x=axis, y=axis)
    assert line == "0.00,100.00 50.00,50.00 100.00,0.00"


@pytest.mark.parametrize("codes", [3, 200, 1024])
def test_the_area_of_sorted_use_is_the_mean_use(codes):
    counts = np.random.default_rng(codes).integers(0, 50, codes)
    path, even = charts.sorted_use(counts.tolist())
    steps = np.array(re.findall(r"L([\d.]+),([\d.]+)H([\d.]+)", path), float)
    heights = 100 - steps[:, 1]
    assert (np.diff(heights) <= 0).all()
    assert heights[0] == 100
    area = np.sum((steps[:, 2] - steps[:, 0]) * heights) / 100
    assert area == pytest.approx(even, abs=0.1)
    if codes <= charts.USE_BINS:
        assert even == pytest.approx(100 * counts.mean() / counts.max())


def test_bars_by_hand():
    one, two, none = charts.bars({"one": 1, "two": 4, "none": 0}, total=10)
    assert (one.name, one.count, one.share, one.width) == ("one", 1, 0.1, 25)
    assert (two.share, two.width) == (0.4, 100)
    assert (none.share, none.width) == (0, 0)
    assert [(bar.share, bar.width) for bar in charts.bars({"x": 0}, total=0)] == [(0, 0)]
