"""A fitted relevance head and its file: what scoring applies."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
from flax import serialization

from dsirm_jax.io.artefacts import Artefact, version_of
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.kinds import class_name, class_named
from dsirm_jax.io.records import LATER
from dsirm_jax.relevance.calibration import Curve
from dsirm_jax.relevance.heads.head import Head
from dsirm_jax.relevance.lists import list_names

ARTEFACT = Artefact(kind="relevance head", stage="relevance")
HOME = "dsirm_jax.relevance.heads"
"""The package whose heads have their bare class names in files."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["params", "curve"],
    meta_fields=["head", "features", "gains", "relevant", "in_lists"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class FittedHead:
    """A head of any kind after training: a pytree of what is learnt, for JAX to trace.

    Attributes:
      head: its settings.
      features: names of the columns that it reads, in order.
      gains: gain of each grade that the training pairs had, rising.
      relevant: whether each grade counts as relevant.
      params: what it has learnt.
      curve: its calibration.
      in_lists: those of `features` that it reads beside their list too, see `lists.list_columns`.
    """

    head: Head
    features: tuple[str, ...]
    gains: tuple[float, ...]
    relevant: tuple[bool, ...]
    params: Any
    curve: Curve
    in_lists: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of all columns that `head` is given, in order: `features`, then those of lists."""
        return self.features + list_names(self.in_lists)

    @functools.cached_property
    def version(self) -> str:
        """A hash of all that decides a pair's probability."""
        arrays = jax.tree.leaves((self.params, self.curve))
        return version_of(json.dumps(_description(self)), arrays)


def save(path: Path, fitted: FittedHead) -> None:
    """Writes a head as one `safetensors` file, its settings and features in the header."""
    ARTEFACT.save(
        path, plain_params(fitted), description=_description(fitted), version=fitted.version
    )


def load(path: Path) -> FittedHead:
    """Reads what `save` wrote.

    Raises:
      InputError: there is no such file, or it holds no head, or not the one it was; the module of
        its class is not imported, or the class has other settings by now.
    """
    tree, header = ARTEFACT.load(path)
    try:
        head = settings_from_json(header["head"])
        if not isinstance(head, Head):
            raise InputError(f"{path}: {type(head).__name__} is no head; run `dsirm relevance`")
        in_lists = tuple(header.get("in_lists", ()))
        inputs = len(header["features"]) + len(list_names(in_lists))
        like = head.params_like(features=inputs, grades=len(header["relevant"]))
        params = serialization.from_state_dict(like, tree["params"])
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: the head is not one that its class can hold by now ({reason}); run "
            f"`dsirm relevance`"
        ) from error
    fitted = FittedHead(
        head=head,
        features=tuple(header["features"]),
        gains=tuple(header["gains"]),
        relevant=tuple(header["relevant"]),
        params=params,
        curve=Curve(**tree["curve"]),
        in_lists=in_lists,
    )
    ARTEFACT.check(path, written=header["version"], read=fitted.version)
    return fitted


def plain_params(fitted: FittedHead) -> dict[str, Any]:
    """Returns what a head has learnt, calibration included, in nested dictionaries of arrays."""
    return {"params": serialization.to_state_dict(fitted.params), "curve": fitted.curve._asdict()}


def with_params(fitted: FittedHead, plain: dict[str, Any]) -> FittedHead:
    """Returns a head with other parameters, which `plain_params` returned or JAX traces."""
    return dataclasses.replace(
        fitted,
        params=serialization.from_state_dict(fitted.params, plain["params"]),
        curve=Curve(**plain["curve"]),
    )


def _description(fitted: FittedHead) -> dict[str, Any]:
    described = {
        "head": settings_to_json(fitted.head),
        "features": fitted.features,
        "gains": fitted.gains,
        "relevant": fitted.relevant,
    }
    # Heads that compare no pairs are described as before there were others.
    return described | ({"in_lists": fitted.in_lists} if fitted.in_lists else {})


def settings_to_json(settings: Any) -> Any:
    """Returns the settings of a head as JSON values, with the class of each dataclass."""
    if dataclasses.is_dataclass(settings):
        fields = {
            field.name: settings_to_json(value)
            for field in dataclasses.fields(settings)
            if (value := getattr(settings, field.name)) != field.default or field.metadata != LATER
        }
        return {"kind": class_name(settings, home=HOME)} | fields
    if isinstance(settings, tuple):
        return [settings_to_json(part) for part in settings]
    return settings


def settings_from_json(value: Any) -> Any:
    """Returns the settings that `settings_to_json` described.

    Raises:
      InputError: a class is not imported, or is not one of settings.
    """
    if isinstance(value, dict):
        kind = class_named(value["kind"], home=HOME)
        fields = {name: part for name, part in value.items() if name != "kind"}
        return kind(**{name: settings_from_json(part) for name, part in fields.items()})
    if isinstance(value, list):
        return tuple(settings_from_json(part) for part in value)
    return value
