import pytest

from dsirm_jax.relevance.printing import aligned, cell


@pytest.mark.parametrize(
    "low, high, signed, text",
    [
        pytest.param(0.1, 0.5, False, "0.2500 [0.1000, 0.5000]", id="value"),
        pytest.param(0.1, 0.5, True, "+0.2500 [+0.1000, +0.5000]*", id="sure difference"),
        pytest.param(-0.1, 0.5, True, "+0.2500 [-0.1000, +0.5000] ", id="unsure difference"),
        pytest.param(0.0, 0.5, True, "+0.2500 [+0.0000, +0.5000] ", id="zero is its end"),
    ],
)
def test_cells_have_their_interval_and_differences_a_star(low, high, signed, text):
    assert cell({"value": 0.25, "low": low, "high": high}, signed=signed) == text


def test_nothing_is_a_dash():
    assert cell(None, signed=True) == "–"


def test_columns_stand_below_each_other_and_no_line_ends_with_spaces():
    assert aligned([["", "A", "B"], ["longer", "x", ""], ["s", "wide", "y"]]) == [
        "        A     B",
        "─" * 15,
        "longer  x",
        "s       wide  y",
    ]
