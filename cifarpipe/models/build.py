"""Build a network from its architecture's keys in params.yaml."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from cifarpipe.config.errors import UserError

if TYPE_CHECKING:
    from cifarpipe.models.compact_ln import CompactLN
    from cifarpipe.models.convmixer import ConvMixer
    from cifarpipe.models.resnet18_ln import ResNet18LN
    from cifarpipe.models.vit import ViT
    from cifarpipe.models.vit_conv import ViTConv

# docs/extending.md says what every architecture has.
Classifier: TypeAlias = "ViT | ViTConv | ConvMixer | CompactLN | ResNet18LN"


def build_model(
    architecture: Mapping[str, Any], *, num_classes: int, image_size: int, name: str | None = None
) -> Classifier:
    """Build a network with newly initialised weights.

    Each architecture's file is imported only when it is asked for, so that editing one retrains no
    model of another.

    Args:
        architecture: `arch` and the constructor's arguments: an entry's `architecture`.
        num_classes: Length of the logits.
        image_size: Height and width of the images, in pixels.
        name: Of the entry, for messages.

    Raises:
        UserError: The architecture does not fit images of this size.
    """
    options = dict(architecture)
    arch = options.pop("arch")
    options["num_classes"] = num_classes
    try:
        match arch:
            case "vit":
                from cifarpipe.models.vit import ViT

                return ViT(image_size=image_size, **options)
            case "vit_conv":
                from cifarpipe.models.vit_conv import ViTConv

                return ViTConv(image_size=image_size, **options)
            case "convmixer":
                from cifarpipe.models.convmixer import ConvMixer

                return ConvMixer(image_size=image_size, **options)
            case "compact_ln":
                from cifarpipe.models.compact_ln import CompactLN

                return CompactLN(image_size=image_size, **options)
            case "resnet18_ln":
                from cifarpipe.models.resnet18_ln import ResNet18LN

                return ResNet18LN(**options)
    except ValueError as error:
        what = f"models.{name}" if name else f"a model of arch {arch}"
        raise UserError(
            f"{what} can't be built: {error}.\nChange that key of its entry in params.yaml, or the "
            f"size of the images (for a folder: `data.image_size`)."
        ) from None
    raise AssertionError(arch)  # the schema knows no other
