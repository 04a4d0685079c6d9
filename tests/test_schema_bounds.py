"""The bounds of every number of params.yaml: the last value accepted, the first one refused."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from cifarpipe.config.recipes import Recipe
from cifarpipe.config.schema import Params
from cifarpipe.models.build import build_model
from tests.support.params_text import CONTENT, FULL, changed, dump, refused_text

TINY = 1e-9
POSITIVE_INT = ([1, 2], [0, -1])
COUNT = ([1, 10**8], [0, -1, 10**8 + 1])
COUNT_FROM_0 = ([0, 10**8], [-1, 10**8 + 1])
SEED = ([0, 2**32 - 1], [-1, 2**32])
INT_FROM_0 = ([0, 1], [-1])
POSITIVE = ([TINY, 1.0], [0, 0.0, -TINY])
FROM_0 = ([0, 0.0, TINY, 5.0], [-TINY])
FRACTION = ([0, 0.0, 1 - TINY], [-TINY, 1, 1.0])
PROBABILITY = ([0, 0.0, 1, 1.0], [-TINY, 1 + TINY])
AREAS = ([[TINY, 1.0], [1.0, 1.0], [0.5, 0.5]],
         [[0, 1.0], [0.5, 1 + TINY], [0.6, 0.5], [0.5], [0.5, 0.6, 0.7], 0.5])  # fmt: skip
RATIOS = ([[TINY, 1.0], [2.0, 2.0], [1.0, 9.0]], [[0.0, 1.0], [-1.0, 1.0], [2.0, 1.0], [1.0]])

RECIPE: dict[str, tuple[list[Any], list[Any]]] = {
    "epochs": POSITIVE_INT,
    "batch_size": COUNT,
    "lr_scale": POSITIVE,
    "warmup": FRACTION,
    "clip_norm": ([TINY, 1.0], [0, 0.0, -1]),
    "label_smoothing": FRACTION,
    "ema": FRACTION,
    "optimizer__weight_decay": FROM_0,
    "augment__crop": INT_FROM_0,
    "augment__resized_crop__scale": AREAS,
    "augment__resized_crop__ratio": RATIOS,
    "augment__randaugment__n": ([0, 10], [-1, 11]),
    "augment__randaugment__m": ([0, 30], [-1, 31]),
    "augment__color_jitter__brightness": FROM_0,
    "augment__color_jitter__contrast": FROM_0,
    "augment__color_jitter__saturation": FROM_0,
    "augment__color_jitter__hue": ([0, 0.5], [-TINY, 0.5 + TINY]),
    "augment__rotate": ([0, 180], [-TINY, 180 + 1e-6]),
    "augment__erasing__probability": PROBABILITY,
    "augment__erasing__scale": AREAS,
    "augment__erasing__ratio": RATIOS,
    "augment__cutout": INT_FROM_0,
    "augment__mixup__probability": PROBABILITY,
    "augment__mixup__alpha": POSITIVE,
    "augment__cutmix__probability": PROBABILITY,
    "augment__cutmix__alpha": POSITIVE,
}
BOUNDS: dict[str, tuple[list[Any], list[Any]]] = {
    "seed": SEED,
    "lr": POSITIVE,
    "data__val_size": ([1, 10**8], [-1, 10**8 + 1]),
    "data__train_size": ([None, *COUNT[0]], COUNT[1]),
    "data__test_size": ([None, *COUNT[0]], COUNT[1]),
    "train__devices": POSITIVE_INT,
    **{f"models__vit__{key}": bounds for key, bounds in RECIPE.items()},
    "models__vit__optimizer__momentum": FRACTION,
    "models__vit__optimizer__betas": ([[0, 0.0], [1 - TINY, 0.5]],
                                      [[1.0, 0.5], [0.5, 1.0], [-TINY, 0.5], [0.5]]),
    "models__vit__patch": POSITIVE_INT,
    "models__vit__dim": ([CONTENT["models"]["vit"]["heads"]], [0, -1]),
    "models__vit__depth": POSITIVE_INT,
    "models__vit__heads": ([1, CONTENT["models"]["vit"]["dim"]], [0, -1]),
    "models__vit__head_dim": POSITIVE_INT,
    "models__vit__mlp_dim": POSITIVE_INT,
    "models__vit__pool": (["class", "mean"], ["max", None]),
    "models__vit__dropout": FRACTION,
    "models__vit__init": (["mimetic", "normal"], ["xavier", None]),
    "models__vit_conv__dim": ([4], [0, 6]),
    "models__vit_conv__depth": POSITIVE_INT,
    "models__vit_conv__heads": POSITIVE_INT,
    "models__vit_conv__head_dim": POSITIVE_INT,
    "models__vit_conv__mlp_dim": POSITIVE_INT,
    "models__convmixer__init": (["covariance"], ["mimetic", None]),
    "models__convmixer__patch": POSITIVE_INT,
    "models__convmixer__dim": POSITIVE_INT,
    "models__convmixer__depth": POSITIVE_INT,
    "models__convmixer__kernel": ([1, 3], [0, 2, -1]),
    "models__compact_ln__stem": POSITIVE_INT,
    "models__compact_ln__dims": ([[1, 1]], [[0, 1], [1], [1, 1, 1], []]),
    "models__compact_ln__depths": ([[1, 1]], [[0, 1], [1], [1, 1, 1], []]),
    "models__compact_ln__kernel": ([1, 3], [0, 2, -1]),
    "models__compact_ln__expansion": POSITIVE_INT,
    "models__resnet18_ln__width": ([16], [15]),
    "models__resnet18_ln__strides": ([[1, 1, 1, 1]], [[0, 1, 1, 1], [1, 1, 1], [1] * 5, 1]),
    "models__resnet18_ln_plateau__plateau__factor": ([TINY, 1 - TINY], [0, 1, 1.0]),
    "models__resnet18_ln_plateau__plateau__patience": INT_FROM_0,
    "evaluate__batch_size": COUNT,
    "evaluate__calibration_bins": ([1, 1000], [0, -1, 1001]),
    "evaluate__tta": (["flip"], ["none", "shift", None, True]),
    "misclassified__count": COUNT,
    "misclassified__seed": SEED,
    "gradcam__batch_size": COUNT,
    "gradcam__opacity": ([TINY, 1, 1.0], [0, 1 + TINY]),
    "gradcam__removal_images": COUNT_FROM_0,
    "gradcam__seed": SEED,
    "report__title": (["x", "x" * 200], ["", "x" * 201]),
}  # fmt: skip
GOOD = [(path, value) for path, (values, _) in BOUNDS.items() for value in values]
BAD = [(path, value) for path, (_, values) in BOUNDS.items() for value in values]


def unmixed(path: str, value: object) -> dict[str, Any]:
    """Return the full content with one key set; mixup and cutmix must not add up to more than 1."""
    zero = {f"models__vit__augment__{other}__probability": 0.0 for other in ("mixup", "cutmix")}
    return changed(FULL, **zero | {path: value})


@pytest.mark.parametrize(("path", "value"), GOOD)
def test_value_at_bound_is_accepted(path: str, value: object) -> None:
    found: Any = Params.model_validate(unmixed(path, value)).model_dump(mode="json")
    for key in path.split("__"):
        found = found[key]
    assert found == value


@pytest.mark.parametrize(("path", "value"), BAD)
def test_value_beyond_bound_is_refused(path: str, value: object) -> None:
    with pytest.raises(ValidationError, match=path.split("__")[-1]):
        Params.model_validate(unmixed(path, value))


@pytest.mark.parametrize("path", [path for path in BOUNDS if path != "report__title"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "1"])
def test_nan_infinity_boolean_and_text_are_refused(path: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate(unmixed(path, value))


def shared(path: str) -> str:
    """Return a path without a model's name; a key of its architecture begins with that."""
    if not path.startswith("models__"):
        return path
    _, name, key = path.split("__", 2)
    of_recipe = key.split("__")[0] in Recipe.model_fields
    return key if of_recipe else f"{FULL['models'][name]['arch']}__{key}"


def numbers(content: Any, path: str = "") -> set[str]:
    """Return the paths of all numbers, and of lists of them."""
    if isinstance(content, dict):
        return {
            found
            for key, value in content.items()
            for found in numbers(value, f"{path}__{key}" if path else key)
        }
    first = content[0] if isinstance(content, list) and content else content
    return {path} if isinstance(first, int | float) and not isinstance(first, bool) else set()


def test_every_number_has_bounds_here() -> None:
    found = {shared(path) for path in numbers(FULL)}
    assert found <= {shared(path) for path in BOUNDS}
    assert len(found) > 50


@pytest.mark.parametrize("name", ["a", "a" * 60, "vit-2_b"])
def test_valid_model_name_is_accepted(name: str) -> None:
    content = changed(report__baselines={})
    params = Params.model_validate(content | {"models": {name: content["models"]["vit"]}})
    assert list(params.models) == [name]


def test_long_model_name_is_refused_with_the_rule() -> None:
    content = changed(report__baselines={})
    text = dump(content | {"models": {"a" * 61: content["models"]["vit"]}})
    with tempfile.TemporaryDirectory() as folder:
        message = refused_text(Path(folder) / "params.yaml", text)
    assert "a model's name is at most 60 lowercase letters" in message


@pytest.mark.parametrize(
    "name", ["", "a" * 61, "Vit", "1vit", "_vit", "-vit", "vit 2", "vit\n", "é"]
)
def test_invalid_model_name_is_refused(name: str) -> None:
    content = changed(report__baselines={})
    with pytest.raises(ValidationError):
        Params.model_validate(content | {"models": {name: content["models"]["vit"]}})


def test_file_without_models_is_refused() -> None:
    with pytest.raises(ValidationError):
        Params.model_validate(changed(models={}, report__baselines={}))


def test_heads_need_not_divide_dim() -> None:
    params = Params.model_validate(changed(models__vit__dim=50, models__vit__heads=3))
    model = build_model(params.models["vit"].architecture, num_classes=4, image_size=32)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


DECAY = {"weight_decay": 0.1, "decay_on": "weights"}
OPTIMIZERS = {
    "adamw": {"name": "adamw", "betas": [0.9, 0.95], **DECAY},
    "sgd": {"name": "sgd", "momentum": 0.9, "nesterov": True, **DECAY},
    "muon": {"name": "muon", "momentum": 0.9, "nesterov": True, "betas": [0.9, 0.95], **DECAY},
}


@pytest.mark.parametrize(
    ("names", "key", "good", "bad"),
    [
        ("sgd", "momentum", TINY, 0),  # with `nesterov: true`
        ("muon", "momentum", 0, -TINY),
        ("sgd muon", "momentum", 1 - TINY, 1),
        ("sgd muon", "nesterov", False, 1),
        ("adamw muon", "betas", [0, 0.0], [1.0, 0.5]),
        ("adamw muon", "betas", [1 - TINY, 0.5], [0.5]),
        ("adamw sgd muon", "weight_decay", 0, -TINY),
        ("adamw sgd muon", "decay_on", "all", "none"),
    ],
)
def test_optimizer_bounds(names: str, key: str, good: object, bad: object) -> None:
    for name in names.split():
        options = OPTIMIZERS[name]
        Params.model_validate(changed(models__vit__optimizer=options | {key: good}))
        with pytest.raises(ValidationError, match=key):
            Params.model_validate(changed(models__vit__optimizer=options | {key: bad}))


@pytest.mark.parametrize(
    ("mixup", "cutmix", "valid"), [(0.5, 0.5, True), (1.0, 0, True), (0.5, 0.5000001, False)]
)
def test_mixing_probabilities_sum_to_at_most_one(mixup: float, cutmix: float, valid: bool) -> None:
    content = changed(
        FULL,
        models__vit__augment__mixup__probability=mixup,
        models__vit__augment__cutmix__probability=cutmix,
    )
    if valid:
        Params.model_validate(content)
    else:
        with pytest.raises(ValidationError, match="allowed: at most 1"):
            Params.model_validate(content)


def test_omitting_every_randaugment_operation_is_refused() -> None:
    operations = [
        "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness",
        "color", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
    ]  # fmt: skip
    omit = "models__vit__augment__randaugment__omit"
    Params.model_validate(changed(FULL, **{omit: operations[1:]}))
    with pytest.raises(ValidationError, match="lists every operation"):
        Params.model_validate(changed(FULL, **{omit: operations}))
