"""Trained networks on disk: safetensors, with all that is needed to use them again."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import ModelEntry
from cifarpipe.models.build import build_model
from cifarpipe.networks.devices import memory_format
from cifarpipe.store.outputs import atomic_path
from cifarpipe.store.prepared import Prepared

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
    split_fingerprint: str
    """Of the data, and of what was trained on: as `Prepared` has them."""
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

    def require(self, entry: ModelEntry, data: Prepared) -> None:
        """Refuse to be used as what it is not.

        Args:
            entry: What params.yaml says the network is.
            data: What it is to be measured on.

        Raises:
            UserError: It has another architecture, or was trained on other images than those that
                `data` holds for training, and so perhaps on some of those for testing.
        """
        if self.split_fingerprint != data.split_fingerprint:
            raise UserError(
                f"The model {self.name} was trained on other images, or on another split of them, "
                f"than {data.folder} holds ({self.split_fingerprint[:12]}, not "
                f"{data.split_fingerprint[:12]}).\nRun `dvc repro` to train it on these."
            )
        wanted = entry.architecture
        if differing := [key for key in wanted if wanted[key] != self.entry.get(key)]:
            said = ", ".join(
                f"{key} is {self.entry.get(key)}, not {wanted[key]}" for key in differing
            )
            raise UserError(
                f"The model {self.name} has another architecture than params.yaml says: {said}.\n"
                f"Run `dvc repro` to train that one, or mend params.yaml."
            )

    def build(self) -> nn.Module:
        """Return the same network with freshly drawn weights."""
        entry: ModelEntry = TypeAdapter(ModelEntry).validate_python(self.entry)
        shape = {"num_classes": len(self.classes), "image_size": self.image_size}
        return build_model(entry, **shape)


def save_model(path: Path, weights: dict[str, Tensor], origin: Origin) -> None:
    """Write weights and origin, whole or not at all; equal content gives equal bytes."""
    weights = {key: value.contiguous() for key, value in weights.items()}
    head = {"origin": asdict(origin), "sha256": _digest(weights, asdict(origin))}
    with atomic_path(path) as partial:
        try:
            save_file(weights, partial, {_KEY: json.dumps(head, sort_keys=True)})
        except SafetensorError as error:  # its way to say that the disk is full
            raise OSError(str(error)) from None


def load_model(path: Path, device: torch.device) -> tuple[nn.Module, Origin]:
    """Rebuild the network, in evaluation mode, on `device`.

    Raises:
        UserError: The file is not there or not one of ours.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist. Run `dvc repro` to train it.")
    try:
        with safe_open(path, framework="pt") as file:
            head = json.loads(file.metadata()[_KEY])
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if _digest(weights, head["origin"]) != head["sha256"]:
            raise ValueError("its content is not what was written")
        origin = Origin(**head["origin"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
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


def _digest(weights: dict[str, Tensor], origin: dict[str, Any]) -> str:
    """Return the SHA-256 of all that a model file says."""
    digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode())
    for key in sorted(weights):
        value = weights[key].cpu()
        digest.update(f"{key} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
