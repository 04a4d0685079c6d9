"""The explanation methods, by their names in params.yaml."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from cifarpipe.explanations.attention import attention_rollout, gradient_attention
from cifarpipe.explanations.gradcam import GRAD_CAM_METHODS, class_activation_maps
from cifarpipe.explanations.libragrad import has_attention_blocks, libragrad
from cifarpipe.results.maps import Maps

if TYPE_CHECKING:
    from cifarpipe.models.build import Classifier

MakeMaps = Callable[[Tensor, Tensor], Maps]


def _activation_maps(model: "Classifier", batch: Tensor, classes: Tensor, *, method: str) -> Maps:
    return class_activation_maps(
        model, model.cam_layer, model.cam_map, batch, classes, method=method
    )


# Each maps a network in evaluation mode, a normalised batch and its target classes to raw maps
# `[N, h, w]`.
GENERAL_METHODS: Mapping[str, Callable[..., Maps]] = {
    name: partial(_activation_maps, method=name) for name in GRAD_CAM_METHODS
}
ATTENTION_METHODS: Mapping[str, Callable[..., Maps]] = {
    "libragrad": libragrad,
    "gradient_attention": gradient_attention,
    "attention_rollout": lambda model, batch, _classes: attention_rollout(model, batch),
}
# Those whose map is the same for every class: it shows what matters to the network.
CLASS_AGNOSTIC = ("eigencam", "attention_rollout")


def methods_for(model: "Classifier") -> Mapping[str, Callable[..., Maps]]:
    """Return the methods that can explain a network."""
    return {**GENERAL_METHODS, **(ATTENTION_METHODS if has_attention_blocks(model) else {})}


def map_maker(model: "Classifier", method: str) -> MakeMaps:
    """Return a function from a normalised batch and its target classes to raw maps `[N, h, w]`.

    It raises ValueError if there is not one class per image, or if what the method returns is not
    one map of finite numbers, in float32, per image.

    Args:
        model: In evaluation mode.
        method: As in params.yaml.

    Raises:
        ValueError: The method does not exist, or needs attention, and the network has none.
    """
    if method not in (known := methods_for(model)):
        raise ValueError(f"{method!r} can't explain this network; allowed: {', '.join(known)}")

    def make_maps(batch: Tensor, classes: Tensor) -> Maps:
        if len(classes) != len(batch):
            raise ValueError(f"{len(classes)} classes for {len(batch)} images")
        maps = known[method](model, batch, classes)
        if maps.ndim != 3 or len(maps) != len(batch) or maps.dtype != np.float32:
            raise ValueError(
                f"{method} returned {maps.dtype} {list(maps.shape)} for {len(batch)} images; "
                f"allowed: float32 [{len(batch)}, h, w]"
            )
        if not np.isfinite(maps).all():
            raise ValueError(f"{method} returned values that are not finite")
        return maps

    return make_maps
