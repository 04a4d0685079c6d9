"""The schema of the parameters: what it accepts, and the fault it names for what it refuses."""

import copy
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from cifarpipe.config.errors import UserError
from cifarpipe.config.reader import HOW_TO_UNDO, load_params
from cifarpipe.config.schema import Params, RandAugmentOperation
from tests.support.params_text import CONTENT, DELETED, ROOT, changed, dump


def refusal(file: Path, **changes: Any) -> list[str]:
    """Return the faults that are named when these keys are set."""
    file.write_text(dump(changed(**changes)), encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_params(file)
    first, *faults, last = str(refused.value).splitlines()
    counted = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    assert first == f"{file} has {counted}:"
    assert last == HOW_TO_UNDO
    return [fault.removeprefix("  - ") for fault in faults]


def test_the_projects_own_files_are_valid() -> None:
    names = list(load_params(ROOT / "params.yaml").models)
    assert names == [
        "vit", "vit_mean", "vit_t2t", "convmixer", "resnet18_ln", "resnet18_ln_plateau"
    ]  # fmt: skip
    assert list(load_params(ROOT / "params.demo.yaml").models) == [names[0], *names[2:]]


def test_values_are_those_of_the_file() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.model_dump(mode="json") == CONTENT


def test_an_unknown_model_is_refused_with_the_names_that_exist() -> None:
    params = load_params(ROOT / "params.yaml")
    for ask in (params.model, params.cam_method):
        with pytest.raises(UserError) as refused:
            ask("vitt")
        message = str(refused.value)
        assert "unknown model 'vitt'" in message
        assert "vit, vit_mean, vit_t2t, convmixer, resnet18_ln, resnet18_ln_plateau" in message
        assert "models.vitt" in message


def test_params_cannot_be_changed(demo_params: Params) -> None:
    for section, key in (
        (demo_params, "lr"),
        (demo_params.data, "val_size"),
        (demo_params.models["vit"], "epochs"),
        (demo_params.models["vit"].optimizer, "weight_decay"),
        (demo_params.models["vit"].augment, "crop"),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, 1)


SECTIONS = [
    "", "data__", "train__", "models__vit__", "models__convmixer__", "models__resnet18_ln__",
    "models__vit__optimizer__", "models__resnet18_ln__optimizer__", "models__vit__augment__",
    "models__resnet18_ln_plateau__plateau__", "evaluate__", "misclassified__", "gradcam__",
    "report__",
]  # fmt: skip


@pytest.mark.parametrize("section", SECTIONS)
def test_an_unknown_key_is_refused_in_every_section(file: Path, section: str) -> None:
    key = f"{section}typo".replace("__", ".")
    wanted = f"{key} is not a known key (misspelt, or not for this section)"
    assert refusal(file, **{f"{section}typo": 1}) == [wanted]


def _all_keys(content: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in content.items():
        found.append(prefix + key)
        if isinstance(value, dict):
            found += _all_keys(value, f"{prefix}{key}__")
    return found


def _may_be_dropped(path: str) -> bool:
    """Tell a whole model and a baseline, which are free, and what has its own test below."""
    parents, _, key = path.rpartition("__")
    return parents in {"models", "report__baselines"} or key in {"arch", "name"}


REQUIRED = [path for path in _all_keys(CONTENT) if not _may_be_dropped(path)]


@pytest.mark.parametrize("path", REQUIRED)
def test_every_key_must_be_there(file: Path, path: str) -> None:
    assert refusal(file, **{path: DELETED}) == [f"{path.replace('__', '.')} is missing"]


def test_without_the_key_that_tells_kinds_apart_that_key_is_named(file: Path) -> None:
    (fault,) = refusal(file, models__vit__arch=DELETED)
    assert fault.startswith("models.vit is {")
    assert fault.endswith(": arch is missing")
    (fault,) = refusal(file, models__vit__optimizer__name=DELETED)
    assert fault.startswith("models.vit.optimizer is {")
    assert fault.endswith(": name is missing")


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("lr", "abc", "lr is 'abc': Input should be a valid number"),
        (
            "lr",
            "0.5",
            "lr is '0.5': Input should be a valid number "
            "(a quoted number is text: take the quotes away)",
        ),
        (
            "models__vit__epochs",
            "25",
            "models.vit.epochs is '25': Input should be a valid integer "
            "(a quoted number is text: take the quotes away)",
        ),
        ("lr", True, "lr is True: Input should be a valid number"),
        ("seed", False, "seed is False: Input should be a valid integer"),
        ("models__vit__depth", True, "models.vit.depth is True: Input should be a valid integer"),
        ("models__vit__depth", 2.0, "models.vit.depth is 2.0: Input should be a valid integer"),
        (
            "models__vit__augment__flip",
            True,
            "flip is True: Input should be 'none', 'random' or 'alternating'",
        ),
        ("models__vit__ema", 1.0, "models.vit.ema is 1.0: Input should be less than 1"),
        ("train__compile", True, "compile is True: Input should be 'auto', 'always' or 'never'"),
        ("train__devices", 0, "train.devices is 0: Input should be greater than 0"),
        (
            "models__vit__augment__randaugment__omit",
            ["invert"],
            "models.vit.augment.randaugment.omit.0 is 'invert': Input should be 'identity', "
            "'shear_x', 'shear_y'",
        ),
        (
            "models__vit__augment__randaugment__omit",
            list(get_args(RandAugmentOperation)),
            "models.vit.augment.randaugment: `omit` names every operation",
        ),
        ("models__vit__augment__randaugment__m", 31, "m is 31: Input should be less than or equal"),
        (
            "models__vit__augment__mixup__probability",
            1.1,
            "mixup.probability is 1.1: Input should be less than or equal to 1",
        ),
        (
            "models__vit__augment__resized_crop__scale",
            [1.0, 0.5],
            "models.vit.augment.resized_crop.scale: [1.0, 0.5] is not in order; allowed: "
            "[smallest, largest]",
        ),
        (
            "models__vit__augment__erasing__scale",
            [0.1, 1.5],
            "erasing.scale.1 is 1.5: Input should be less than or equal to 1",
        ),
        ("lr", None, "lr is null: Input should be a valid number"),
        ("report__title", 7, "report.title is 7: Input should be a valid string"),
        ("report__title", "", "report.title is '': String should have at least 1 character"),
        ("lr", float("inf"), "lr is inf: Input should be a finite number"),
        ("lr", float("nan"), "lr is nan: Input should be a finite number"),
        ("models__vit__dropout", float("nan"), "dropout is nan: Input should be a finite number"),
        ("lr", -0.1, "lr is -0.1: Input should be greater than 0"),
        ("lr", 0, "lr is 0: Input should be greater than 0"),
        ("seed", -1, "seed is -1: Input should be greater than or equal to 0"),
        ("seed", 2**32, "seed is 4294967296: Input should be less than 4294967296"),
        ("data__val_size", -1, "data.val_size is -1: Input should be greater than or equal to 0"),
        ("data__train_size", 0, "data.train_size is 0: Input should be greater than 0"),
        ("models__vit__dropout", 1.0, "models.vit.dropout is 1.0: Input should be less than 1"),
        ("gradcam__opacity", 1.5, "opacity is 1.5: Input should be less than or equal to 1"),
        ("models__vit__optimizer__betas", [0.9, 1.5], "betas.1 is 1.5: Input should be less than"),
        ("models__vit__optimizer__betas", [0.9], "models.vit.optimizer.betas.1 is missing"),
        ("models__resnet18_ln__strides", [1, 2, 2], "models.resnet18_ln.strides.3 is missing"),
        ("train__keep", "first", "train.keep is 'first': Input should be 'best' or 'last'"),
        (
            "data__source",
            "cifar100",
            "data.source is 'cifar100': Input should be 'cifar10', 'folder' or 'synthetic'",
        ),
        (
            "models__vit__schedule",
            "step",
            "models.vit.schedule is 'step': "
            "Input should be 'triangular', 'onecycle', 'cosine' or 'plateau'",
        ),
        (
            "models__vit__arch",
            "vitt",
            "models.vit.arch is 'vitt': allowed: 'vit', 'convmixer', 'resnet18_ln'",
        ),
        ("models__vit__arch", None, "models.vit.arch is null: allowed: 'vit', 'convmixer'"),
        (
            "models__vit__optimizer__name",
            "adam",
            "models.vit.optimizer.name is 'adam': allowed: 'adamw', 'sgd', 'muon'",
        ),
        (
            "models__vit__optimizer",
            "adamw",
            "models.vit.optimizer is 'adamw': a section of `key: value` lines is wanted here",
        ),
        ("data", None, "data is null: a section of `key: value` lines is wanted here"),
        ("models", [1], "models is [1]: a section of `key: value` lines is wanted here"),
        ("models", {}, "Dictionary should have at least 1 item"),
        (
            "models__vit__dim",
            130,
            "models.vit: `dim` 130 is not divisible by `heads` 8; "
            "allowed: a multiple, e.g. 136",
        ),
        (
            "models__convmixer__kernel",
            4,
            "models.convmixer: `kernel` 4 is even; allowed: 1, 3, 5, 7 …",
        ),
        (
            "models__resnet18_ln__optimizer",
            {"name": "sgd", "momentum": 0, "nesterov": True, "weight_decay": 0, "decay_on": "all"},
            "models.resnet18_ln.optimizer: `nesterov: true` needs a `momentum` above 0",
        ),
        (
            "models__vit__plateau",
            {"factor": 0.3, "patience": 2},
            "models.vit: `plateau: {factor: …, patience: …}` belongs to `schedule: plateau`",
        ),
        (
            "models__resnet18_ln_plateau__plateau",
            None,
            "models.resnet18_ln_plateau: `plateau: {factor: …, patience: …}` belongs to",
        ),
        ("data__folder", "pictures", "data: `folder` names the pictures' folder when `source`"),
        ("data__source", "folder", "data: `folder` names the pictures' folder when `source`"),
        (
            "data__source",
            "synthetic",
            "data: synthetic images have no natural number: give `train_size` and `test_size`",
        ),
        (
            "report__baselines__vitt",
            "some.csv",
            "report.baselines.vitt names no model; "
            "the models are: vit, vit_mean, vit_t2t, convmixer, resnet18_ln, resnet18_ln_plateau",
        ),
        ("models__ViT", CONTENT["models"]["vit"], "models.ViT is 'ViT': a model's name is lower-"),
        ("models__../x", CONTENT["models"]["vit"], "models.../x is '../x': a model's name is"),
        ("models__-x", CONTENT["models"]["vit"], "models.-x is '-x': a model's name is lower-case"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_key_value_and_what_is_allowed(
    file: Path, path: str, value: Any, fault: str
) -> None:
    (said,) = refusal(file, **{path: copy.deepcopy(value)})
    assert fault in said
    assert path.rpartition("__")[0].replace("__", ".") in said


@pytest.mark.parametrize("missing", ["train_size", "test_size"])
def test_synthetic_images_need_both_sizes(file: Path, missing: str) -> None:
    sizes = {"data__train_size": 100, "data__test_size": 50, f"data__{missing}": None}
    (fault,) = refusal(file, data__source="synthetic", **sizes)
    assert "give `train_size` and `test_size`" in fault


def test_a_narrow_resnet_is_refused(file: Path) -> None:
    (fault,) = refusal(file, models__resnet18_ln__width=12)
    assert fault.startswith("models.resnet18_ln.width is 12: Input should be greater than or equal")


def test_public_labels_are_those_of_cifar10_alone(file: Path) -> None:
    file.write_text(dump(changed(report__labels__human="h.npy")))
    assert load_params(file).report.labels.human == "h.npy"
    (fault,) = refusal(
        file, report__labels__human="h.npy", data__source="folder", data__folder="pictures"
    )
    assert fault == (
        "report.labels.human is about CIFAR-10's own test images, and data.source is folder"
    )


def test_without_validation_nothing_may_ask_for_it(file: Path) -> None:
    keep, fault = refusal(file, data__val_size=0)
    assert keep == "train.keep: best needs a validation split, and data.val_size is 0"
    plateau = "models.resnet18_ln_plateau.schedule: plateau needs a validation split"
    assert plateau in fault
    (fault,) = refusal(file, data__val_size=0, train__keep="last")
    assert plateau in fault
    assert "keep" not in fault


def test_without_validation_and_without_a_need_for_it_all_is_well(file: Path) -> None:
    content = changed(
        data__val_size=0,
        train__keep="last",
        models__resnet18_ln_plateau=DELETED,
        report__baselines={},
    )
    file.write_text(dump(content))
    assert load_params(file).data.val_size == 0


def test_all_faults_are_named_at_once(file: Path) -> None:
    faults = refusal(
        file,
        lr="abc",
        train__precison="auto",
        train__precision=DELETED,
        models__convmixer__kernel=-1,
        models__vit__dim=130,
        models__vit_t2t__arch="swin",
    )
    keys = [fault.split(" ")[0].rstrip(":") for fault in faults]
    assert keys == [
        "lr", "train.precision", "train.precison", "models.vit", "models.vit_t2t.arch",
        "models.convmixer.kernel",
    ]  # fmt: skip


def test_sections_that_disagree_are_named_beside_faults_of_other_sections(file: Path) -> None:
    faults = refusal(file, lr="abc", data__val_size=0, report__baselines={"vitt": "some.csv"})
    assert [fault.split(" ")[0] for fault in faults] == [
        "lr", "train.keep:", "models.resnet18_ln_plateau.schedule:", "report.baselines.vitt",
    ]  # fmt: skip


def test_a_long_value_is_shown_shortened(file: Path) -> None:
    (fault,) = refusal(file, lr="a" * 500)
    assert len(fault) < 120


def test_mixup_and_cutmix_that_add_up_past_one_are_refused(file: Path) -> None:
    (said,) = refusal(
        file,
        models__vit__augment__mixup__probability=0.7,
        models__vit__augment__cutmix__probability=0.6,
    )
    assert (
        "models.vit.augment: `mixup.probability` 0.7 and `cutmix.probability` 0.6 add up to 1.3; "
        "allowed: at most 1" in said
    )
