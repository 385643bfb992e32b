from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.io.records import from_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    size: int
    share: float = 0.5

    def __post_init__(self):
        if self.size < 0:
            raise InputError("Part.size is negative")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    name: str
    parts: Mapping[str, Part]
    first: Part | None = None
    names: tuple[str, ...] = ()
    is_open: bool = False
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)


GIVEN = {"name": "a", "parts": {"x": {"size": 3, "share": 1}}}


def test_every_kind_of_field_is_read():
    given = GIVEN | {
        "first": {"size": 0},
        "names": ["b", "c"],
        "is_open": True,
        "others": {"d": []},
    }
    assert from_json(Whole, given, name="file") == Whole(
        name="a",
        parts={"x": Part(size=3, share=1.0)},
        first=Part(size=0),
        names=("b", "c"),
        is_open=True,
        others={"d": []},
    )
    assert from_json(Whole, GIVEN | {"first": None}, name="file").first is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param([], r"file is \[\], which is not an object", id="no object"),
        pytest.param({"parts": {}}, "file has no name", id="missing"),
        pytest.param(GIVEN | {"\n": 1}, r"file has '\\n', which is no field", id="unknown"),
        pytest.param(GIVEN | {"name": None}, "file.name is None, which is not a text", id="null"),
        pytest.param(GIVEN | {"is_open": 1}, "file.is_open is 1, which is not true or", id="truth"),
        pytest.param(GIVEN | {"names": "bc"}, "file.names is 'bc', which is not a list", id="list"),
        pytest.param(
            GIVEN | {"names": ["b", 2]}, r"file.names\[1\] is 2, which is not a text", id="part"
        ),
        pytest.param(
            GIVEN | {"parts": {"x": {"size": True}}},
            "file.parts.x.size is True, which is not a whole number",
            id="truth for a number",
        ),
        pytest.param(
            GIVEN | {"first": {"size": 1, "share": float("nan")}},
            "file.first.share is nan, which is not finite",
            id="not finite",
        ),
        pytest.param(GIVEN | {"first": {"size": -1}}, "Part.size is negative", id="refused"),
        pytest.param(GIVEN | {"name": ["x" * 999]}, r"x\.\.\., which is not a text$", id="long"),
    ],
)
def test_what_is_none_is_named_with_its_place(given, message):
    with pytest.raises(InputError, match=f"^{message}" if message[0] != "x" else message):
        from_json(Whole, given, name="file")
