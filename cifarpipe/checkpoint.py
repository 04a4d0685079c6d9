"""Trained networks on disk: safetensors, with all that is needed to use them again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cifarpipe.devices import memory_format
from cifarpipe.errors import UserError
from cifarpipe.models.build import build_model
from cifarpipe.outputs import atomic_path
from cifarpipe.params import ModelEntry

_KEY = "cifarpipe"  # one entry: the order of several in the file's head is not defined


@dataclass(frozen=True)
class Origin:
    """Where a network's weights come from."""

    name: str
    entry: dict[str, Any]
    """Its architecture and recipe, as in params.yaml."""
    classes: list[str]
    image_size: int
    mean: list[float]
    """Of each channel, in 0 … 1: what its input is normalised by."""
    std: list[float]
    data_fingerprint: str
    seed: int
    peak_lr: float
    kept_epoch: int
    val_accuracy: float | None
    """At the kept epoch; none where nothing was held out."""
    execution: dict[str, Any]
    """Device, precision and what else the bits may depend on."""

    @property
    def trained_on(self) -> str:
        """Return the device and the precision, as a figure of speed should name them."""
        return f"{self.execution['device']}, {self.execution['precision']}"

    def build(self) -> nn.Module:
        """Return the same network with freshly drawn weights."""
        entry: ModelEntry = TypeAdapter(ModelEntry).validate_python(self.entry)
        shape = {"num_classes": len(self.classes), "image_size": self.image_size}
        return build_model(entry, **shape)


def save_model(path: Path, weights: dict[str, Tensor], origin: Origin) -> None:
    """Write weights and origin, whole or not at all; equal content gives equal bytes."""
    with atomic_path(path) as partial:
        metadata = {_KEY: json.dumps(asdict(origin), sort_keys=True)}
        save_file({key: value.contiguous() for key, value in weights.items()}, partial, metadata)


def load_model(path: Path, device: torch.device) -> tuple[nn.Module, Origin]:
    """Rebuild the network, in evaluation mode, on `device`.

    Raises:
        UserError: The file is not there or not one of ours.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist. Run `dvc repro` to train it.")
    try:
        with safe_open(path, framework="pt") as file:
            origin = Origin(**json.loads(file.metadata()[_KEY]))
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path} is no model of this pipeline, or damaged ({error}).\n"
            f"Delete it and run `dvc repro`."
        ) from None
    try:
        model = origin.build()
        model.load_state_dict(weights)
    except (ValidationError, RuntimeError):
        raise UserError(
            f"{path} was written by another version of the pipeline: its {origin.name} is not one "
            f"that this version builds.\nDelete it and run `dvc repro`."
        ) from None
    return model.to(device).to(
        memory_format=memory_format(origin.entry["arch"], device)
    ).eval(), origin
