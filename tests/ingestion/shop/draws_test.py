import numpy as np

from dsirm_jax.ingestion.shop import draws


def test_draws_of_a_row_are_those_of_its_own_counters():
    rows = np.array([0, 1, 7, 8, 9, 10**7])
    values = draws.uniforms(5, 2, rows, width=12)
    for row, own in zip(rows.tolist(), values, strict=True):
        counter = np.random.Philox(key=[5, 2], counter=3 * row)
        np.testing.assert_array_equal(np.random.Generator(counter).random(12), own)


def test_draws_are_uniform_and_independent():
    values = draws.uniforms(0, 1, np.arange(5000), width=4)
    assert values.min() >= 0 and values.max() < 1
    np.testing.assert_allclose(values.mean(axis=0), 0.5, atol=0.02)
    np.testing.assert_allclose(values.var(axis=0), 1 / 12, atol=0.005)
    assert np.abs(np.corrcoef(values.T) - np.eye(4)).max() < 0.05


def test_totals_are_split_by_the_largest_remainders():
    shares = np.array([5.0, 3.0, 2.0])
    np.testing.assert_array_equal(draws.apportion(4, shares), [2, 1, 1])  # 2.0, 1.2, 0.8
    np.testing.assert_array_equal(draws.apportion(1, np.array([1.0, 1.0])), [1, 0])


def test_a_typo_drops_doubles_or_swaps_a_letter_of_the_longest_word():
    # A word of four letters has three places of three kinds of typo.
    typos = [draws.misspell("a lamp", (kind + 0.5) / 9) for kind in range(9)]
    assert typos == [
        *("a amp", "a llamp", "a almp"),
        *("a lmp", "a laamp", "a lmap"),
        *("a lap", "a lammp", "a lapm"),
    ]
