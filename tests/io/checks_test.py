import re

import pytest

from dsirm_jax.io.checks import check_choice, check_text
from dsirm_jax.io.errors import InputError


@pytest.mark.parametrize("value", ["", " \n", None, 3, ["text"]])
def test_a_text_is_not_blank(value):
    message = f"gin binding A.b is {value!r}; bind a text that is not empty"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        check_text("A.b", value)
    check_text("A.b", " x")


@pytest.mark.parametrize("value", ["c", "", 0, 1, False])
def test_a_choice_is_one_of_its_own_type(value):
    message = f"gin binding A.b is {value!r}; bind 'a', True or None"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        check_choice("A.b", value, ("a", True, None))
    for choice in ("a", True, None):
        check_choice("A.b", choice, ("a", True, None))
