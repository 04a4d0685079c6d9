"""A network's answer to one picture, beside what its logits and maps are when computed apart."""

import numpy as np
import pytest
import torch

from cifarpipe.cli.explain import answer, methods_for
from cifarpipe.config.schema import Params
from cifarpipe.explanations.explainer import Explainer
from cifarpipe.models.build import build_model
from cifarpipe.results.maps import CLASS_AGNOSTIC
from tests.support.origins import make_origin

CLASSES = ["zebra", "007", "ant", "true", "<b>"]
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def explainer(params: Params, name: str, method: str) -> Explainer:
    torch.manual_seed(0)
    model = build_model(params.models[name], num_classes=len(CLASSES), image_size=32).eval()
    with torch.no_grad():  # not nearly the same for all classes
        model.head.bias.copy_(torch.tensor([0.5, -1.0, 2.0, 1.0, 0.0]))
    origin = make_origin(name, CLASSES, mean=MEAN, std=STD)
    return Explainer(model, origin, method, batch_size=2)


@pytest.mark.parametrize("name", ["vit", "convmixer", "resnet18_ln"])
def test_probabilities_are_the_softmax_of_the_logits(name: str, demo_params: Params) -> None:
    asked = explainer(demo_params, name, "gradcam")
    found = answer(asked, PICTURE, 3)
    batch = (PICTURE / 255 - MEAN) / STD
    with torch.no_grad():
        logits = asked.model(torch.tensor(batch.transpose(2, 0, 1)[None], dtype=torch.float32))
    weights = np.exp(logits[0].double().numpy())
    expected = dict(zip(CLASSES, weights / weights.sum(), strict=True))
    assert found.classes == sorted(CLASSES, key=lambda name: -expected[name])
    wanted = [expected[name] for name in found.classes]
    np.testing.assert_allclose(found.probabilities, wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "method"),
    [("vit", "gradient_attention"), ("vit", "layercam"), ("convmixer", "gradcam")],
)
def test_maps_are_those_of_the_most_probable_classes(
    name: str, method: str, demo_params: Params
) -> None:
    asked = explainer(demo_params, name, method)
    found = answer(asked, PICTURE, 3)
    assert len(found.maps) == 3
    for map_, of in zip(found.maps, found.classes[:3], strict=True):
        (expected,) = asked.maps(PICTURE[None], asked.labels([of]))
        np.testing.assert_allclose(map_, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    assert not np.allclose(found.maps[0], found.maps[1])


def test_fewer_classes_than_maps_are_all_explained(demo_params: Params) -> None:
    assert len(answer(explainer(demo_params, "convmixer", "gradcam"), PICTURE, 9).maps) == 5


@pytest.mark.parametrize("name", ["vit", "convmixer"])
def test_every_method_for_a_network_works_and_some_class_agnostic(
    name: str, demo_params: Params
) -> None:
    methods = methods_for(explainer(demo_params, name, "gradcam").model)
    assert ("attention_rollout" in methods) == (name == "vit")
    for method in methods:
        first, *others = answer(explainer(demo_params, name, method), PICTURE, 5).maps
        same = all(np.allclose(first, other, rtol=1e-3, atol=1e-7) for other in others)
        assert same == (method in CLASS_AGNOSTIC), method
