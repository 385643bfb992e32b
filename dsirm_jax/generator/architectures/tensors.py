"""A pretrained model as its files have it: settings, and tensors that are read one by one."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from dsirm_jax.io.arrays import finite
from dsirm_jax.io.errors import InputError

CONFIG = "config.json"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class Tensor(NamedTuple):
    """A tensor that is not read yet.

    Attributes:
      file: that has it.
      shape: of the array.
      dtype: as the file calls it, such as `BF16`.
      load: reads it, in its own type.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """The files of a pretrained model.

    Attributes:
      path: the folder, or the only file.
      config_file: that has the settings.
      config: the settings, under the names of Hugging Face's `config.json`.
      tensors: by Hugging Face's names.
    """

    path: Path
    config_file: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def model_type(self) -> Any:
        """What the settings call the family."""
        return self.config.get("model_type")

    def check_tensors(
        self, expected: Mapping[str, tuple[int, ...]], *, ignored: Collection[str] = ()
    ) -> None:
        """Checks that the tensors are those of a model; none is read.

        Args:
          expected: shapes of all that it has, by name.
          ignored: names that it may have as well.

        Raises:
          InputError: one is missing, unknown, or of another shape.
        """
        for name, shape in expected.items():
            if name not in self.tensors:
                raise InputError(
                    f"{self.path}: the weights have no tensor {name}; give a whole model"
                )
            tensor = self.tensors[name]
            if tensor.shape != shape:
                raise InputError(
                    f"{tensor.file}: tensor {name} is {tensor.shape}, but {self.config_file.name} "
                    f"says {shape}; give weights and settings of one model"
                )
        for name in sorted(self.tensors.keys() - expected.keys() - set(ignored)):
            raise InputError(
                f"{self.tensors[name].file}: the weights have a tensor {name} that no "
                f"{self.model_type} has with these settings; give weights and "
                f"{self.config_file.name} of one model"
            )

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor in its own type.

        Raises:
          InputError: it cannot be read, or has a number that is not finite.
        """
        tensor = self.tensors[name]
        return finite(tensor.load(), name=f"tensor {name}", file=tensor.file)

    def read_float32(self, name: str) -> np.ndarray:
        """Returns a tensor as float32; see `read`."""
        return np.asarray(self.read(name), np.float32)


def hugging_face_weights(folder: Path) -> Weights:
    """Opens a Hugging Face folder.

    Args:
      folder: with `config.json` and `model.safetensors`, or its shards and their index.

    Raises:
      InputError: a file is missing or damaged, or no JSON object.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise InputError(f"{folder / CONFIG}: no JSON object; give the model's own {CONFIG}")
    tensors: dict[str, Tensor] = {}
    for file in _files(folder):
        for name, tensor in _opened(file):
            if name in tensors:
                raise InputError(
                    f"{file}: tensor {name} is in {tensors[name].file} too; fetch both again"
                )
            tensors[name] = tensor
    return Weights(path=folder, config_file=folder / CONFIG, config=config, tensors=tensors)


def read_json(path: Path) -> Any:
    """Returns the value in a file.

    Raises:
      InputError: there is no such file, or it has no JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no such file, or no JSON; give a model's folder") from error


def _files(folder: Path) -> list[Path]:
    """Returns the files that have the tensors of a folder."""
    index, single = folder / INDEX, folder / SINGLE
    if index.is_file():
        try:
            return sorted({folder / name for name in read_json(index)["weight_map"].values()})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index}: no weight_map; fetch it again") from error
    if not single.is_file():
        raise InputError(
            f"{folder}: no {SINGLE}; save the model with safe_serialization=True (other formats "
            f"are pickles, which are never read)"
        )
    return [single]


def _opened(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors of a file by name."""
    try:
        with safetensors.safe_open(file, "np") as opened:
            parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            found = {name: (tuple(of.get_shape()), of.get_dtype()) for name, of in parts.items()}
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{file}: cannot be read ({error}); fetch it again") from error
    for name, (shape, dtype) in found.items():
        yield name, Tensor(file, shape, dtype, functools.partial(_loaded, file, name))


def _loaded(file: Path, name: str) -> np.ndarray:
    import ml_dtypes  # noqa: F401 (NumPy knows bfloat16 from it)

    try:
        with safetensors.safe_open(file, "np") as opened:
            return opened.get_tensor(name)
    except (OSError, TypeError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{file}: tensor {name} cannot be read ({error}); fetch it again"
        ) from error
