"""The evaluation of a network compared with its logits computed plainly."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import sklearn.metrics
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from cifarpipe.config.schema import Evaluate
from cifarpipe.evaluation.evaluate import Evaluation, evaluate
from cifarpipe.store.prepared import Split
from tests.support.origins import make_origin

CLASSES = ["ant", "bee", "cat"]
FILES = [f"{number}.png" for number in range(40)]
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


@dataclass(frozen=True)
class Data:
    """The part of `Prepared` that an evaluation reads."""

    val: Split
    test: Split
    classes: list[str]


def make_split(count: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(count) % 3
    images[np.arange(count), :, :4, labels] |= 96  # the network can be better than chance
    return Split(images, labels, np.arange(count) * 7, FILES[:count])


@pytest.fixture
def data() -> Data:
    return Data(make_split(60, 0), make_split(40, 1), CLASSES)


@pytest.fixture
def model() -> nn.Module:
    """Return a network that reads the left half, so that mirroring changes its logits."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, (8, 4), stride=8), nn.Flatten()).eval()
    with torch.no_grad():
        weight = 3 * torch.eye(3)[:, :, None, None] / 32
        model[0].weight.copy_(weight.expand(3, 3, 8, 4) + 0.05 * torch.randn(3, 3, 8, 4))
    return model


def plain_logits(model: nn.Module, split: Split, *, mirrored: bool = False) -> Tensor:
    images = torch.from_numpy(split.images).permute(0, 3, 1, 2) / 255
    inputs = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        return model(inputs.flip(3) if mirrored else inputs)


def run(model: nn.Module, data: Data, **options: object) -> Evaluation:
    origin = replace(
        make_origin("small", CLASSES, mean=MEAN, std=STD), val_accuracy=0.87654, kept_epoch=3
    )
    evaluation = Evaluate(batch_size=9, calibration_bins=5, **options)
    return evaluate(model, origin, data, evaluation)


def test_predictions_are_those_of_the_test_split(model: nn.Module, data: Data) -> None:
    logits = plain_logits(model, data.test)
    table = run(model, data).predictions
    assert table["index"].tolist() == data.test.index.tolist()
    assert table.file.tolist() == FILES
    assert table.true.tolist() == [CLASSES[label] for label in data.test.labels]
    assert table.predicted.tolist() == [CLASSES[label] for label in logits.argmax(1)]
    np.testing.assert_allclose(table[["logit_0", "logit_1", "logit_2"]], logits, atol=1e-5)
    assert table.predicted.nunique() == 3


def test_metrics_are_those_of_the_test_split(model: nn.Module, data: Data) -> None:
    logits, labels = plain_logits(model, data.test), torch.from_numpy(data.test.labels)
    metrics = run(model, data).metrics
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    assert 0.4 < accuracy < 1
    assert metrics["accuracy"].value == round(accuracy, 4)
    assert metrics["loss"].value == pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-4)
    assert metrics["val_accuracy"].value == 0.8765
    assert metrics["kept_epoch"].value == 3
    assert "tta_accuracy" not in metrics


def test_temperature_is_fitted_on_validation(model: nn.Module, data: Data) -> None:
    metrics = run(model, data).metrics

    def fitted(split: Split) -> float:
        logits, labels = plain_logits(model, split).double(), torch.from_numpy(split.labels)
        return minimize_scalar(lambda t: F.cross_entropy(logits / t, labels).item(), (0.1, 5)).x

    expected = fitted(data.val)
    assert abs(expected - fitted(data.test)) > 0.01
    assert metrics["temperature"].value == pytest.approx(expected, abs=2e-4)
    scaled = plain_logits(model, data.test) / expected
    loss = F.cross_entropy(scaled, torch.from_numpy(data.test.labels)).item()
    assert metrics["scaled_loss"].value == pytest.approx(loss, abs=2e-4)


def test_tta_averages_each_image_and_its_mirror(model: nn.Module, data: Data) -> None:
    metrics = run(model, data, tta="flip").metrics
    both = plain_logits(model, data.test) + plain_logits(model, data.test, mirrored=True)
    accuracy = (both.argmax(1).numpy() == data.test.labels).mean()
    assert metrics["tta_accuracy"].value == round(accuracy, 4)
    assert metrics["tta_accuracy"].value != metrics["accuracy"].value


def test_tables_count_every_test_image(model: nn.Module, data: Data) -> None:
    found = run(model, data)
    predicted = plain_logits(model, data.test).argmax(1)
    matrix = sklearn.metrics.confusion_matrix(data.test.labels, predicted)
    assert found.confusion.images.tolist() == matrix.ravel().tolist()
    assert found.per_class["class"].tolist() == CLASSES
    assert found.per_class.images.tolist() == matrix.sum(axis=1).tolist()
    assert found.calibration.images.sum() == 40
    assert found.slices.groupby("property").images.sum().tolist() == [40] * 3
    correct = (found.slices.accuracy * found.slices.images).groupby(found.slices.property).sum()
    np.testing.assert_allclose(correct, np.trace(matrix), atol=0.01)


def test_missing_validation_leaves_its_metrics_out(model: nn.Module, data: Data) -> None:
    empty = replace(data, val=make_split(0, 0))
    origin = make_origin("small", CLASSES, mean=MEAN, std=STD)
    metrics = evaluate(model, origin, empty, Evaluate(batch_size=9, calibration_bins=5)).metrics
    assert "val_accuracy" not in metrics
    assert not {"temperature", "scaled_loss", "scaled_ece"} & metrics.keys()
