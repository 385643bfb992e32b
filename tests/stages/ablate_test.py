import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.stages.ablate import Ladder


@pytest.mark.parametrize("folds", [-1, 0, 1, 2.0])
def test_less_than_two_folds_are_refused(folds):
    with pytest.raises(InputError, match=f"Ladder.folds is {folds}; bind a whole .* at least 2"):
        Ladder(folds=folds)


@pytest.mark.parametrize("seeds", [(), (1, 2, 1)], ids=str)
def test_seeds_are_some_and_different(seeds):
    with pytest.raises(InputError, match="gin binding Ladder.seeds is .*different seeds"):
        Ladder(seeds=seeds)


def test_a_negative_seed_is_refused():
    with pytest.raises(InputError, match="Ladder.seeds is -1; bind a whole number of at least 0"):
        Ladder(seeds=(0, -1))
