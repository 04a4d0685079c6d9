"""Class activation maps that can be compared: raw, signed, one per class asked about.

The weights and sums are grad-cam's (Grad-CAM, arXiv:1610.02391); what that package does to its maps
afterwards is left out, since it scales each to its own maximum, so that a map of next to nothing
and a map of strong evidence look alike.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cifarpipe.imports import left_out

# Seconds of imports for what only its other methods use.
_UNUSED = (
    "sklearn",
    "sklearn.decomposition",
    "torchvision",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)
with left_out(*_UNUSED):
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

Maps = NDArray[np.float32]


class _RawGradCAM(GradCAM):
    """Grad-CAM of one layer without ReLU, scaling and enlarging."""

    def compute_cam_per_layer(
        self, input_tensor: Tensor, targets: list[nn.Module], eigen_smooth: bool
    ) -> list[Maps]:
        (activations,) = self.activations_and_grads.activations
        (gradients,) = self.activations_and_grads.gradients
        layer = self.target_layers[0]
        arrays = activations.numpy(), gradients.numpy()
        return [self.get_cam_image(input_tensor, layer, targets, *arrays, eigen_smooth)]

    def aggregate_multi_layers(self, cam_per_target_layer: list[Maps]) -> Maps:
        return cam_per_target_layer[0]


def class_activation_maps(
    model: nn.Module,
    layer: nn.Module,
    to_map: Callable[[Tensor], Tensor],
    batch: Tensor,
    classes: Tensor,
) -> Maps:
    """Return where `layer` holds evidence for (above 0) and against (below 0) a class.

    The model is left as it was found: mode, gradients and hooks; frozen weights and a caller's
    `no_grad` or autocast do not matter.

    Args:
        model: In fp32; returns logits `[N, classes]`.
        layer: Part of `model`.
        to_map: Lays the layer's output out as `[N, C, h, w]`.
        batch: `[N, 3, H, W]`, normalised, on the model's device.
        classes: `[N]` the label asked about for each image.

    Returns:
        `[N, h, w]` in the layer's own grid, raw: comparable between classes of one image.

    Raises:
        ValueError: A class for each image is wanted, in range; the model is not in fp32.
    """
    if len(classes) != len(batch):
        raise ValueError(f"{len(classes)} classes for {len(batch)} images")
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise ValueError("activation maps are computed in fp32: call model.float() first")
    targets = [ClassifierOutputTarget(label) for label in classes.tolist()]
    with _left_as_found(model), _gradients_on(batch.device):
        cam = _RawGradCAM(model, [layer], reshape_transform=to_map)
        try:
            # Not as a context manager: that one swallows an IndexError.
            maps: Maps = cam(batch.detach().clone().requires_grad_(), targets)
            count = cam.outputs.shape[1]
        except IndexError:
            raise ValueError(f"a class out of range in {sorted(set(classes.tolist()))}") from None
        finally:
            cam.activations_and_grads.release()
    if classes.min() < 0:  # an index from the end would be taken for a class
        raise ValueError(f"a class below 0; allowed: 0 to {count - 1}")
    return maps


@contextmanager
def _gradients_on(device: torch.device) -> Iterator[None]:
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        yield


@contextmanager
def _left_as_found(model: nn.Module) -> Iterator[None]:
    """Give every module its mode and every parameter its gradient back."""
    modes = {module: module.training for module in model.modules()}
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, gradient in gradients.items():
            parameter.grad = gradient


def enlarge(maps: Maps, size: int) -> Maps:
    """Bring maps `[N, h, w]` to the pictures' size: `[N, size, size]`, bilinear."""
    tensor = torch.from_numpy(np.ascontiguousarray(maps))[:, None]
    big = F.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False)
    return big[:, 0].numpy()


def without_evidence(maps: Maps) -> NDArray[np.bool_]:
    """Say of each map of `[N, h, w]` whether nothing in it speaks for its class."""
    return maps.max(axis=(1, 2)) <= 0


@dataclass(frozen=True)
class Pointing:
    """How often a map's highest point lies on the object (doi:10.1007/s11263-017-1059-x)."""

    hits: int
    images: int
    """Of which those without evidence are misses."""
    centre: float
    """What a map would score that always points at the middle."""
    random: float
    """What one would score that points anywhere: the objects' mean share of the picture."""


def pointing_game(maps: Maps, masks: NDArray[np.bool_]) -> Pointing:
    """Compare maps with the objects' masks, no tolerance around the mask.

    The centre's score is that of a Gaussian in the middle, or of any map highest there.

    Args:
        maps: `[N, h, w]` raw.
        masks: `[N, H, W]`, true on the object.
    """
    if not len(maps):
        return Pointing(hits=0, images=0, centre=0.0, random=0.0)
    size = masks.shape[1]
    big = enlarge(maps, size)
    rows, columns = np.unravel_index(big.reshape(len(big), -1).argmax(axis=1), (size, size))
    hits = masks[np.arange(len(big)), rows, columns] & ~without_evidence(maps)
    # The middle of an even size is the corner of four pixels.
    middle = slice((size - 1) // 2, size // 2 + 1)
    return Pointing(
        hits=int(hits.sum()),
        images=len(maps),
        centre=float(masks[:, middle, middle].mean()),
        random=float(masks.mean()),
    )
