import dataclasses
import sys

import pytest

from dsirm_jax.io.artefacts import Artefact
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.kinds import class_name, class_named

HOME = "dsirm_jax.io"


@dataclasses.dataclass(frozen=True)
class Own:
    pass


def test_a_class_of_the_folder_goes_by_its_bare_name():
    value = Artefact(kind="k", stage="s")
    assert class_name(value, home=HOME) == "Artefact"
    assert class_named("Artefact", home=HOME) is Artefact


def test_a_class_of_a_users_own_goes_by_its_module():
    name = class_name(Own(), home=HOME)
    assert name == f"{__name__}.Own"
    assert class_named(name, home=HOME) is Own


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nothing", "there is no Nothing in dsirm_jax.io"),
        ("Path", "there is no Path in dsirm_jax.io"),  # imported there, not made there
        ("encodings.cp1026.Codec", "nothing has imported encodings.cp1026"),
        ("subprocess.Popen", "subprocess.Popen is no frozen dataclass"),
        (f"{__name__}.pytest", f"there is no {__name__}.pytest in {__name__}"),
    ],
)
def test_other_names_are_refused_and_nothing_is_imported(name, message):
    with pytest.raises(InputError, match=message):
        class_named(name, home=HOME)
    assert "encodings.cp1026" not in sys.modules
