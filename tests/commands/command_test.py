import pytest

from dsirm_jax.commands.command import Command, Flag
from dsirm_jax.io.errors import InputError

COMMAND = Command(
    name="weigh",
    summary="items -> their weights",
    run=lambda flags, arguments: 0,
    flags=(
        Flag(name="unit", value="NAME", default="kg", meaning="of the weights"),
        Flag(name="tare", value="3", kind="number", default=3, bounds=(0, 9), meaning="left out"),
        Flag(name="item", value="ID", kind="texts", meaning="may be given again;\nin this order"),
        Flag(name="scale", value="NAME", kind="choices", choices=("old", "new"), meaning="which"),
    ),
    arguments=("DIR",),
    wanted="name one shop",
)
SHARED = (Flag(name="force", kind="switch", meaning="again"), Flag(name="tags", kind="list"))


@pytest.mark.parametrize(
    ("arguments", "values", "given"),
    [
        pytest.param(["a"], {}, ["a"], id="no flag"),
        pytest.param(["--unit=g", "a"], {"unit": "g"}, ["a"], id="value after equals sign"),
        pytest.param(
            ["--unit", "weigh", "a"], {"unit": "weigh"}, ["a"], id="value named as the command"
        ),
        pytest.param(
            ["a", "--force", "--tare=4"],
            {"force": True, "tare": 4},
            ["a"],
            id="flags after the argument",
        ),
        pytest.param(
            ["--item=1", "a", "--item", "2"], {"item": ["1", "2"]}, ["a"], id="repeated flag"
        ),
        pytest.param(
            ["--tags=x,y", "--scale=new", "a"],
            {"tags": ["x", "y"], "scale": ["new"]},
            ["a"],
            id="lists",
        ),
        pytest.param(["weigh"], {}, ["weigh"], id="argument named as the command"),
        pytest.param(["--", "--force"], {}, ["--force"], id="argument that looks like a flag"),
    ],
)
def test_flags_stand_anywhere_and_have_their_values(arguments, values, given):
    defaults = {"unit": "kg", "tare": 3, "item": [], "scale": [], "force": False, "tags": []}
    assert COMMAND.parse(arguments, shared=SHARED) == (defaults | values, given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param([], "name one shop: dsirm weigh DIR", id="no argument"),
        pytest.param(
            ["a", "b"],
            "unexpected argument 'b'; see `dsirm weigh --help`",
            id="one argument too many",
        ),
        pytest.param(["a", "--tare=10"], "flag --tare=10", id="number out of range"),
        pytest.param(["a", "--scale=broken"], "flag --scale=broken", id="unknown choice"),
        pytest.param(
            ["a", "--colour=red"], "Unknown command line flag 'colour'", id="unknown flag"
        ),
    ],
)
def test_what_is_wrong_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        COMMAND.parse(arguments, shared=SHARED)


def test_help_is_made_of_the_flags():
    assert COMMAND.help() == (
        "dsirm weigh DIR: items -> their weights\n\n"
        "flags:\n"
        "  --unit=NAME              of the weights\n"
        "  --tare=3                 left out\n"
        "  --item=ID                may be given again;\n"
        "                           in this order\n"
        "  --scale=NAME             which"
    )
