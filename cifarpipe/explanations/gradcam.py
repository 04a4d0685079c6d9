"""Class activation maps that can be compared: raw, signed, one per class asked about.

The weights and sums are grad-cam's; what that package does to its maps
afterwards is left out, since it scales each to its own maximum, so that a map of next to nothing
and a map of strong evidence look alike.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cifarpipe.explanations.imports import left_out

# Seconds of imports for what only its other methods use.
_UNUSED = (
    "sklearn",
    "sklearn.decomposition",
    "torchvision",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)
with left_out(*_UNUSED):
    from pytorch_grad_cam import (
        EigenCAM,
        GradCAM,
        GradCAMPlusPlus,
        HiResCAM,
        LayerCAM,
        XGradCAM,
    )
    from pytorch_grad_cam.base_cam import BaseCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction

Maps = NDArray[np.float32]


class _Raw(BaseCAM):
    """A method's map of one layer without ReLU, scaling and enlarging."""

    def compute_cam_per_layer(
        self, input_tensor: Tensor, targets: list[nn.Module], eigen_smooth: bool
    ) -> list[Maps]:
        (activations,) = self.activations_and_grads.activations
        gradients = self.activations_and_grads.gradients
        layer = self.target_layers[0]
        arrays = activations.numpy(), gradients[0].numpy() if gradients else None
        return [self.get_cam_image(input_tensor, layer, targets, *arrays, eigen_smooth)]

    def aggregate_multi_layers(self, cam_per_target_layer: list[Maps]) -> Maps:
        return cam_per_target_layer[0]


class _UprightEigenCAM(EigenCAM):
    """EigenCAM whose sign is not left to chance: a first component may point either way."""

    def get_cam_image(self, *arguments: Any) -> Maps:
        activations = arguments[3]
        maps: Maps = get_2d_projection_with_sign_correction(activations)
        return maps


# By the names that params.yaml uses.
METHODS: dict[str, type[BaseCAM]] = {
    name: type(f"Raw{method.__name__}", (_Raw, method), {})
    for name, method in {
        "gradcam": GradCAM,  # arXiv:1610.02391
        "gradcam++": GradCAMPlusPlus,  # arXiv:1710.11063
        "xgradcam": XGradCAM,  # arXiv:2008.02312
        "hirescam": HiResCAM,  # arXiv:2011.08891
        "layercam": LayerCAM,  # doi:10.1109/TIP.2021.3089943
        "eigencam": _UprightEigenCAM,  # arXiv:2008.00299; the same map for every class
    }.items()
}


def class_activation_maps(
    model: nn.Module,
    layer: nn.Module,
    to_map: Callable[[Tensor], Tensor],
    batch: Tensor,
    classes: Tensor,
    *,
    method: str = "gradcam",
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
        method: A name in `METHODS`.

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
        cam = METHODS[method](model, [layer], reshape_transform=to_map)
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
    # The first turns gradients on again after `no_grad` too.
    with torch.inference_mode(False), torch.autocast(device.type, enabled=False):
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
