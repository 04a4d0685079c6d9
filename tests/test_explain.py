"""The explanation of one image, compared with logits and maps that are computed separately."""

import numpy as np
import pytest
import torch

from cifarpipe.cli.explain import explain_image
from cifarpipe.config.schema import Params
from cifarpipe.explanations.explainer import Explainer
from cifarpipe.models.build import build_model
from tests.support.origins import make_origin

CLASSES = ["zebra", "007", "ant", "true", "<b>"]
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def make_explainer(params: Params, name: str, method: str) -> Explainer:
    torch.manual_seed(0)
    architecture = params.models[name].architecture
    model = build_model(architecture, num_classes=len(CLASSES), image_size=32).eval()
    with torch.no_grad():  # make the classes' probabilities differ
        model.head.bias.copy_(torch.tensor([0.5, -1.0, 2.0, 1.0, 0.0]))
    origin = make_origin(name, CLASSES, architecture=architecture, mean=MEAN, std=STD)
    return Explainer(model, origin, method, batch_size=2)


@pytest.mark.parametrize("name", ["vit", "convmixer", "resnet18_ln"])
def test_probabilities_equal_softmax_of_logits(name: str, demo_params: Params) -> None:
    explainer = make_explainer(demo_params, name, "gradcam")
    found = explain_image(explainer, IMAGE, 3)
    batch = (IMAGE / 255 - MEAN) / STD
    with torch.no_grad():
        logits = explainer.model(torch.tensor(batch.transpose(2, 0, 1)[None], dtype=torch.float32))
    weights = np.exp(logits[0].double().numpy())
    expected = dict(zip(CLASSES, weights / weights.sum(), strict=True))
    assert found.classes == sorted(CLASSES, key=lambda name: -expected[name])
    wanted = [expected[name] for name in found.classes]
    np.testing.assert_allclose(found.probabilities, wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "method"),
    [("vit", "libragrad"), ("vit", "layercam"), ("convmixer", "gradcam")],
)
def test_maps_belong_to_most_probable_classes(name: str, method: str, demo_params: Params) -> None:
    explainer = make_explainer(demo_params, name, method)
    found = explain_image(explainer, IMAGE, 3)
    assert len(found.maps) == 3
    for map_, name_of_class in zip(found.maps, found.classes[:3], strict=True):
        (expected,) = explainer.maps(IMAGE[None], explainer.labels([name_of_class]))
        np.testing.assert_allclose(map_, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    assert not np.allclose(found.maps[0], found.maps[1])


def test_at_most_all_classes_are_explained(demo_params: Params) -> None:
    assert (
        len(explain_image(make_explainer(demo_params, "convmixer", "gradcam"), IMAGE, 9).maps) == 5
    )
