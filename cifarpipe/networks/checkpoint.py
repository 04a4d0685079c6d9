"""Trained networks on disk: safetensors files with everything needed to use them again."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cifarpipe.config.errors import UserError
from cifarpipe.models.build import build_model
from cifarpipe.networks.devices import memory_format
from cifarpipe.store.outputs import atomic_path
from cifarpipe.store.prepared import Prepared

if TYPE_CHECKING:
    from cifarpipe.models.build import Classifier

_KEY = "cifarpipe"  # a single entry, since the order of several in the file's header is undefined


@dataclass(frozen=True)
class Origin:
    """Where a network's weights come from.

    It holds nothing that changes while the weights do not, such as a revision or a time, so that
    the same training gives the same file.
    """

    name: str
    architecture: Mapping[str, Any]
    """`arch` and its keys, as in params.yaml."""
    recipe: Mapping[str, Any]
    """The keys that trained it, as in params.yaml."""
    classes: list[str]
    image_size: int
    mean: list[float]
    """Of each channel, of values in 0 to 1; normalises the input."""
    std: list[float]
    data_fingerprint: str
    split_fingerprint: str
    """Of the data, and of the images trained on: as in `Prepared`."""
    seed: int
    peak_lr: float
    kept_epoch: int
    val_accuracy: float | None
    """At the kept epoch; None without a validation split."""
    train_loss: float
    """Of the last epoch, in nats."""
    execution: Mapping[str, Any]
    """Device, precision and what else the bits may depend on."""

    @property
    def trained_on(self) -> str:
        """Device and precision, for people."""
        return f"{self.execution['device']}, {self.execution['precision']}"

    def normalization(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return `mean` and `std` as tensors `[3]` on a device."""
        mean, std = (torch.tensor(values, device=device) for values in (self.mean, self.std))
        return mean, std

    def require(self, architecture: Mapping[str, Any], data: Prepared) -> None:
        """Check that the network fits params.yaml and the prepared data.

        Args:
            architecture: What params.yaml says the network is.
            data: What it is to be evaluated on.

        Raises:
            UserError: It has another architecture, or was trained on other images than `data`
                holds for training, and so perhaps on some of its test images.
        """
        if self.split_fingerprint != data.split_fingerprint:
            raise UserError(
                f"The model {self.name} was trained on other images, or on another split of them, "
                f"than {data.folder} holds ({self.split_fingerprint[:12]}, not "
                f"{data.split_fingerprint[:12]}).\nRun `dvc repro` to train it on these."
            )
        keys = dict.fromkeys((*architecture, *self.architecture))
        differing = [
            f"{key} is {self.architecture.get(key)}, not {architecture.get(key)}"
            for key in keys
            if self.architecture.get(key) != architecture.get(key)
        ]
        if differing:
            raise UserError(
                f"The model {self.name} has another architecture than params.yaml says: "
                f"{', '.join(differing)}.\nRun `dvc repro` to train that one, or fix params.yaml."
            )

    def build(self) -> "Classifier":
        """Return the same network with newly initialised weights."""
        return build_model(
            self.architecture, num_classes=len(self.classes), image_size=self.image_size
        )


def save_model(path: Path, weights: dict[str, Tensor], origin: Origin) -> None:
    """Write weights and origin, or nothing; equal content gives equal bytes."""
    weights = {key: value.contiguous() for key, value in weights.items()}
    header = {"origin": asdict(origin), "sha256": _digest(weights, asdict(origin))}
    with atomic_path(path) as partial:
        try:
            save_file(weights, partial, {_KEY: json.dumps(header, sort_keys=True)})
        except SafetensorError as error:  # raised if the disk is full
            raise OSError(str(error)) from None


def load_model(path: Path, device: torch.device) -> "tuple[Classifier, Origin]":
    """Return the network, in evaluation mode on `device`, and its origin.

    Raises:
        UserError: The file is missing, damaged, or not a model of this pipeline.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist.\nRun `dvc repro` in the project's root folder to train it."
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[_KEY])
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if _digest(weights, header["origin"]) != header["sha256"]:
            raise ValueError("checksum mismatch")
        origin = Origin(**header["origin"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not a model of this version of the pipeline, or is damaged ({error}).\n"
            f"Delete it and run `dvc repro`."
        ) from None
    try:
        model = origin.build()
        model.load_state_dict(weights)
    except (KeyError, TypeError, AssertionError, RuntimeError):
        raise UserError(
            f"{path} was written by another version of the pipeline: this version can't build its "
            f"{origin.name}.\nDelete it and run `dvc repro`."
        ) from None
    return model.to(device).to(memory_format=memory_format(model, device)).eval(), origin


def _digest(weights: dict[str, Tensor], origin: dict[str, Any]) -> str:
    """Return the SHA-256 of everything in a model file."""
    digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode())
    for key in sorted(weights):
        value = weights[key].cpu()
        digest.update(f"{key} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
