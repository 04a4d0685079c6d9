"""From an entry of params.yaml to a network: the one place that knows all architectures."""

from typing import Protocol, cast

from torch import Tensor, nn

from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import ConvMixer, ModelEntry, ResNet18LN, ViT


class Classifier(Protocol):
    """What every architecture offers beside being an `nn.Module`."""

    def forward_features(self, images: Tensor) -> Tensor:
        """Return what the network finds in images `[B, 3, H, W]`."""

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits `[B, classes]` of what `forward_features` found."""

    @property
    def cam_layer(self) -> nn.Module:
        """Where a class activation map is taken."""

    def cam_map(self, activation: Tensor) -> Tensor:
        """Lay that layer's output out as a picture `[B, C, h, w]`."""


def build_model(entry: ModelEntry, *, num_classes: int, image_size: int) -> nn.Module:
    """Build the network of `entry` with freshly drawn weights; it is a `Classifier`.

    An architecture's file is imported only when it is asked for, so that editing one retrains no
    model of another.

    Raises:
        UserError: The architecture does not fit images of this size.
    """
    shape = {"num_classes": num_classes, "image_size": image_size}
    try:
        match entry:
            case ViT():
                from cifarpipe.models import vit

                return vit.ViT(
                    patch=entry.patch,
                    dim=entry.dim,
                    depth=entry.depth,
                    heads=entry.heads,
                    head_dim=entry.head_dim,
                    mlp_dim=entry.mlp_dim,
                    pool=entry.pool,
                    dropout=entry.dropout,
                    **shape,
                )
            case ConvMixer():
                from cifarpipe.models import convmixer

                return convmixer.ConvMixer(
                    patch=entry.patch,
                    dim=entry.dim,
                    depth=entry.depth,
                    kernel=entry.kernel,
                    **shape,
                )
            case ResNet18LN():
                from cifarpipe.models import resnet18_ln

                return resnet18_ln.ResNet18LN(
                    width=entry.width, strides=entry.strides, num_classes=num_classes
                )
    except ValueError as error:
        raise UserError(
            f"a model of arch {entry.arch} can't be built: {error}.\n"
            f"Change that key of its entry in params.yaml."
        ) from None


def as_classifier(model: nn.Module) -> Classifier:
    """See a network that `build_model` made as what it is beside a module."""
    return cast(Classifier, model)
