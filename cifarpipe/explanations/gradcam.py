"""Class activation maps that can be compared: raw, signed, each of one class.

grad-cam computes the weights and sums. Its post-processing is left out: it scales every map to its
own maximum, so that a map of almost no evidence and a map of strong evidence look alike.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cifarpipe.explanations.gradients import gradients_enabled
from cifarpipe.results.maps import Maps

if TYPE_CHECKING:
    from pytorch_grad_cam.base_cam import BaseCAM

# The methods of grad-cam.
GRAD_CAM_METHODS = (
    "gradcam",  # arXiv:1610.02391
    "gradcam++",  # arXiv:1710.11063
    "xgradcam",  # arXiv:2008.02312
    "hirescam",  # arXiv:2011.08891
    "layercam",  # doi:10.1109/TIP.2021.3089943
    "eigencam",  # arXiv:2008.00299; the same map for every class
)


@cache
def cam_class(method: str) -> "type[BaseCAM]":
    """Return grad-cam's class for a method, changed to return raw maps.

    grad-cam is imported here, since that takes seconds and maps from attention do not need it.
    """
    from pytorch_grad_cam import EigenCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
    from pytorch_grad_cam.base_cam import BaseCAM
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction

    class Raw(BaseCAM):
        """The map of one layer without ReLU, scaling and upsampling."""

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

    class SignedEigenCAM(EigenCAM):
        """EigenCAM with a defined sign: a first component may point either way."""

        def get_cam_image(self, *arguments: Any) -> Maps:
            activations = arguments[3]
            maps: Maps = get_2d_projection_with_sign_correction(activations)
            return maps

    base = {
        "gradcam": GradCAM,
        "gradcam++": GradCAMPlusPlus,
        "xgradcam": XGradCAM,
        "hirescam": HiResCAM,
        "layercam": LayerCAM,
        "eigencam": SignedEigenCAM,
    }[method]
    return type(f"Raw{base.__name__}", (Raw, base), {})


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

    The model keeps its mode, gradients and hooks. Frozen weights and a caller's `no_grad` or
    autocast make no difference.

    Args:
        model: In fp32; returns logits `[N, classes]`.
        layer: Part of `model`.
        to_map: Reshapes the layer's output to `[N, C, h, w]`.
        batch: `[N, 3, H, W]`, normalised, on the model's device.
        classes: `[N]` the target class of each image.
        method: One of `GRAD_CAM_METHODS`.

    Returns:
        `[N, h, w]` on the layer's own grid, raw: comparable between classes of one image.

    Raises:
        ValueError: A class is out of range, or the model is not in fp32.
    """
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise ValueError("activation maps are computed in fp32: call model.float() first")
    create = cam_class(method)
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(label) for label in classes.tolist()]
    with _restored(model), gradients_enabled(batch.device):
        cam = create(model, [layer], reshape_transform=to_map)
        try:
            # Not as a context manager, which would swallow an IndexError.
            maps: Maps = cam(batch.detach().clone().requires_grad_(), targets)
            count = cam.outputs.shape[1]
        except IndexError:
            raise ValueError(f"a class out of range in {sorted(set(classes.tolist()))}") from None
        finally:
            cam.activations_and_grads.release()
    if classes.min() < 0:  # a negative index would count from the end
        raise ValueError(f"a class below 0; allowed: 0 to {count - 1}")
    return maps


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Restore every module's mode and every parameter's gradient afterwards."""
    modes = {module: module.training for module in model.modules()}
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
