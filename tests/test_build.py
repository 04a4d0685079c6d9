"""Building a network from its keys in params.yaml."""

import pytest
import torch

from cifarpipe.config.architectures import ARCHITECTURES
from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import Params
from cifarpipe.models.build import build_model
from tests.support.architectures import MODEL_OF_ARCHITECTURE


def test_demo_has_a_model_of_every_architecture() -> None:
    """Many tests of architectures are of these models."""
    assert set(MODEL_OF_ARCHITECTURE) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", MODEL_OF_ARCHITECTURE.values())
def test_architecture_names_the_module_of_the_network(name: str, demo_params: Params) -> None:
    architecture = demo_params.models[name].architecture
    before = dict(architecture)
    model = build_model(architecture, num_classes=7, image_size=16)
    assert type(model).__module__ == f"cifarpipe.models.{architecture['arch']}"
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 7)
    assert architecture == before


def test_keys_reach_the_constructor(demo_params: Params) -> None:
    vit = demo_params.models["vit"].model_copy(update={"dropout": 0.25, "pool": "mean", "depth": 5})
    model = build_model(vit.architecture, num_classes=7, image_size=16)
    assert len(model.blocks) == 5
    assert model.class_token is None
    assert model.dropout.p == 0.25


@pytest.mark.parametrize(
    ("arch", "changes", "message"),
    [
        ("convmixer", {"patch": 16}, "patch 16 leaves one position of images of 16 pixels"),
        (
            "compact_ln",
            {"dims": (8,) * 5, "depths": (1,) * 5},
            "images of 16 × 16 can be halved 4 times, but there are 5 `dims`",
        ),
    ],
)
def test_images_that_are_too_small_are_a_user_error(
    arch: str, changes: dict[str, object], message: str, demo_params: Params
) -> None:
    name = MODEL_OF_ARCHITECTURE[arch]
    architecture = demo_params.models[name].architecture | changes
    with pytest.raises(UserError, match=f"a model of arch {arch} can't be built: {message}"):
        build_model(architecture, num_classes=10, image_size=16)
    with pytest.raises(UserError, match=f"models.mine can't be built: {message}"):
        build_model(architecture, num_classes=10, image_size=16, name="mine")


def test_smallest_image_of_a_deep_network_is_accepted(demo_params: Params) -> None:
    name = MODEL_OF_ARCHITECTURE["compact_ln"]
    changes = {"dims": (8,) * 4, "depths": (1,) * 4}
    architecture = demo_params.models[name].architecture | changes
    model = build_model(architecture, num_classes=3, image_size=16)
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 3)


@pytest.mark.parametrize("arch", ["vit", "convmixer"])
def test_indivisible_image_size_is_a_user_error(arch: str, demo_params: Params) -> None:
    architecture = demo_params.models[arch].architecture | {"patch": 4}
    with pytest.raises(UserError, match=r"patch 4 does not divide the image size 30"):
        build_model(architecture, num_classes=10, image_size=30)
