"""The schema of params.yaml: what it accepts, and the error it reports for what it refuses."""

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from cifarpipe.config.architectures import ARCHITECTURES
from cifarpipe.config.errors import UserError
from cifarpipe.config.reader import how_to_undo, load_params
from cifarpipe.config.recipes import Augment, RandAugmentOperation
from cifarpipe.config.schema import AttentionMethod, GeneralMethod, Params
from tests.support.params_text import AUGMENT, CONTENT, DELETED, EXAMPLE, FULL, changed, dump

ARCHES = list(ARCHITECTURES)


def refusal(file: Path, content: dict[str, Any] = CONTENT, /, **changes: Any) -> list[str]:
    """Return the errors that are reported when these keys are set."""
    file.write_text(dump(changed(content, **changes)), encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_params(file)
    first, *errors, last = str(refused.value).splitlines()
    counted = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    assert first == f"{file} has {counted}:"
    assert last == how_to_undo(file)
    return [error.removeprefix("  - ") for error in errors]


def accepted(file: Path, content: dict[str, Any] = CONTENT, /, **changes: Any) -> Params:
    """Return the parameters that are read when these keys are set."""
    file.write_text(dump(changed(content, **changes)), encoding="utf-8")
    return load_params(file)


def test_demo_and_example_have_every_architecture(demo_params: Params) -> None:
    for params in (demo_params, load_params(EXAMPLE)):
        assert {model.arch for model in params.models.values()} == set(ARCHITECTURES)


@pytest.mark.parametrize("content", [CONTENT, FULL], ids=["project", "full"])
def test_values_are_those_of_the_file(file: Path, content: dict[str, Any]) -> None:
    assert accepted(file, content).given() == content


def test_architecture_excludes_recipe_keys(file: Path) -> None:
    models = accepted(file, FULL).models
    assert models["vit"].architecture == {
        "arch": "vit", "patch": 4, "dim": 128, "depth": 6, "heads": 8, "head_dim": 64,
        "mlp_dim": 256, "pool": "class", "dropout": 0.1, "init": "mimetic",
    }  # fmt: skip
    assert "dropout" not in models["vit_t2t"].architecture
    assert models["resnet18_ln"].architecture == {
        "arch": "resnet18_ln", "width": 64, "strides": [1, 2, 2, 1], "zero_init_residual": True,
    }  # fmt: skip


@pytest.mark.parametrize("size", [7, 0, 1025, 64.5, True, "64"])
def test_image_size_is_a_whole_number_from_8_to_1024(file: Path, size: object) -> None:
    folder = {"data__source": "folder", "data__folder": "photos"}
    for allowed in (8, 1024):
        assert accepted(file, **folder, data__image_size=allowed).data.image_size == allowed
    (error,) = refusal(file, **folder, data__image_size=size)
    assert error.startswith("data.image_size is ")


def test_unknown_model_is_refused_with_known_names() -> None:
    params = load_params(EXAMPLE)
    for look_up in (params.model, params.explanation_method):
        with pytest.raises(UserError) as refused:
            look_up("vitt")
        message = str(refused.value)
        assert "unknown model 'vitt'" in message
        assert ", ".join(params.models) in message
        assert "models.vitt" in message


def test_explanation_method_is_that_of_the_architecture(file: Path) -> None:
    method = {"vit": "eigencam", "convmixer": "gradcam++", "resnet18_ln": "hirescam"}
    params = accepted(file, gradcam__method=CONTENT["gradcam"]["method"] | method)
    assert params.explanation_method("vit_t2t") == "eigencam"
    assert params.explanation_method("convmixer") == "gradcam++"
    assert params.explanation_method("resnet18_ln_plateau") == "hirescam"


def test_params_are_frozen(demo_params: Params) -> None:
    for section, key in (
        (demo_params, "lr"),
        (demo_params.data, "val_size"),
        (demo_params.models["vit"], "epochs"),
        (demo_params.models["vit"].optimizer, "weight_decay"),
        (demo_params.models["vit"].augment, "crop"),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, 1)


def section_at(path: str) -> dict[str, Any]:
    section = FULL
    for part in path.split("__")[:-1]:
        section = section[part]
    return section


SECTIONS = [
    "", "data__", "train__", "models__vit__", "models__convmixer__", "models__resnet18_ln__",
    "models__vit__optimizer__", "models__vit__augment__", "models__vit__augment__resized_crop__",
    "models__vit__augment__randaugment__", "models__vit__augment__color_jitter__",
    "models__vit__augment__erasing__", "models__vit__augment__mixup__",
    "models__vit__augment__cutmix__", "models__resnet18_ln_plateau__plateau__", "evaluate__",
    "misclassified__", "gradcam__", "report__", "report__labels__",
]  # fmt: skip


@pytest.mark.parametrize("section", SECTIONS)
def test_unknown_key_is_refused_with_known_keys(file: Path, section: str) -> None:
    (error,) = refusal(file, FULL, **{f"{section}typo": 1})
    start, known = error.split("; known: ")
    assert start == f"{section}typo is not a known key".replace("__", ".")
    own = set(section_at(section))
    others = set(known.split(", ")) - own
    assert own <= set(known.split(", "))
    # Keys that the full file does not give everywhere.
    is_model = section.startswith("models__") and section.count("__") == 2
    elsewhere = {"dropout", "ema", "plateau", "init"} if is_model else {"image_size"}
    assert others <= elsewhere


def test_misspelt_augmentation_is_refused_with_known_ones(file: Path) -> None:
    assert refusal(file, models__vit__augment__cutuot=8) == [
        f"models.vit.augment.cutuot is not a known key; known: {', '.join(Augment.model_fields)}"
    ]


@pytest.mark.parametrize("name", ["vit", "resnet18_ln", "sgd", "arch", "augment"])
def test_known_keys_follow_arch_not_name(file: Path, name: str) -> None:
    entry = CONTENT["models"]["convmixer"] | {"heads": 8}
    content = changed(models={name: entry}, report__baselines={})
    (error,) = refusal(file, content)
    start, known = error.split("; known: ")
    assert start == f"models.{name}.heads is not a known key"
    assert set(known.split(", ")) == {
        *CONTENT["models"]["convmixer"], "plateau", "ema", "init",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["vit", "muon"])
def test_known_optimizer_keys_follow_its_name(file: Path, name: str) -> None:
    sgd = {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0, "decay_on": "all"}
    entry = CONTENT["models"]["convmixer"] | {"optimizer": sgd | {"betas": [0.9, 0.95]}}
    (error,) = refusal(file, changed(models={name: entry}, report__baselines={}))
    assert error == (
        f"models.{name}.optimizer.betas is not a known key; "
        "known: name, momentum, nesterov, weight_decay, decay_on"
    )


def all_keys(content: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in content.items():
        found.append(prefix + key)
        if isinstance(value, dict):
            found += all_keys(value, f"{prefix}{key}__")
    return found


# Keys that switch a feature off when they are absent.
OPTIONAL = [
    "models__vit__dropout", "models__vit__init", "models__vit__ema", "models__vit__clip_norm",
    "models__vit__optimizer__keep_norm", "models__resnet18_ln__zero_init_residual",
    "models__vit__label_smoothing", "models__vit__augment",
    *(f"models__vit__augment__{key}" for key in AUGMENT),
    "models__vit__augment__randaugment__omit",
    *(f"models__vit__augment__color_jitter__{key}" for key in AUGMENT["color_jitter"]),
    "evaluate__tta", "report__baselines", "report__labels", "report__labels__contested",
    "report__labels__duplicates", "report__labels__human",
]  # fmt: skip


def is_required(path: str) -> bool:
    """Return False for optional keys, whole models and baselines, and keys with own tests below."""
    parents, _, key = path.rpartition("__")
    same_of_vit = path if not path.startswith("models__") else f"models__vit__{_of_model(path)}"
    own_tests = {"arch", "name", "plateau", "zero_init_residual"}
    free = parents in {"models", "report__baselines"} or key in own_tests
    return not free and not {path, same_of_vit} & set(OPTIONAL)


def _of_model(path: str) -> str:
    return "__".join(path.split("__")[2:])


REQUIRED = [path for path in all_keys(FULL) if is_required(path)]


@pytest.mark.thorough
@pytest.mark.parametrize("path", REQUIRED)
def test_missing_required_key_is_reported(file: Path, path: str) -> None:
    assert refusal(file, FULL, **{path: DELETED}) == [f"{path.replace('__', '.')} is missing"]


def value_at(params: Params, path: str) -> Any:
    value: Any = params
    for key in path.split("__"):
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    return value


@pytest.mark.thorough
@pytest.mark.parametrize("path", OPTIONAL)
def test_absent_optional_key_is_off(file: Path, path: str) -> None:
    assert value_at(accepted(file, FULL), path) is not None
    params = accepted(file, FULL, **{path: DELETED})
    assert value_at(params, path) is None
    *parents, key = path.split("__")
    section: Any = params.given()
    for parent in parents:
        section = section[parent]
    assert key not in section


@pytest.mark.thorough
@pytest.mark.parametrize("path", [*OPTIONAL, "models__resnet18_ln_plateau__plateau"])
def test_null_optional_key_is_refused(file: Path, path: str) -> None:
    key = path.replace("__", ".")
    assert refusal(file, FULL, **{path: None}) == [
        f"{key} is null: leave the key out to switch this off"
    ]


@pytest.mark.parametrize("section", ["augment:", "augment: null", "augment: ~"])
def test_empty_augment_section_gives_one_error(file: Path, section: str) -> None:
    text = dump(changed(models__vit__augment="HERE")).replace("augment: HERE", section)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_params(file)
    assert str(refused.value).splitlines() == [
        f"{file} has 1 error:",
        "  - models.vit.augment is null: leave the key out to switch this off",
        how_to_undo(file),
    ]


@pytest.mark.parametrize("section", ["data", "train", "models", "evaluate", "gradcam", "report"])
def test_empty_required_section_gives_one_error(file: Path, section: str) -> None:
    text = dump(changed(**{section: "HERE"})).replace(f"{section}: HERE", f"{section}:")
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_params(file)
    first, error = str(refused.value).splitlines()[:2]
    assert first == f"{file} has 1 error:"
    assert error.startswith(f"  - {section} is null: expected a section")


def test_value_in_place_of_a_section_names_its_keys(file: Path) -> None:
    changes = {"models__vit__augment": {"cutmix": 1}, "models__convmixer__optimizer": "adam"}
    assert refusal(file, **changes) == [
        "models.vit.augment.cutmix is 1: expected a section; its keys: probability, alpha",
        "models.convmixer.optimizer is 'adam': expected a section; its keys: "
        "name (adamw, sgd, muon) and those it needs",
    ]


def test_augment_without_keys_changes_nothing(file: Path) -> None:
    params = accepted(file, models__vit__augment={})
    assert params.given()["models"]["vit"]["augment"] == {}


def test_missing_discriminator_is_reported(file: Path) -> None:
    (error,) = refusal(file, models__vit__arch=DELETED)
    assert error.startswith("models.vit is {")
    assert error.endswith(": arch is missing")
    (error,) = refusal(file, models__vit__optimizer__name=DELETED)
    assert error.startswith("models.vit.optimizer is {")
    assert error.endswith(": name is missing")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("lr", "abc", "lr is 'abc': Input should be a valid number"),
        (
            "lr",
            "0.5",
            "lr is '0.5': Input should be a valid number "
            "(a quoted number is text: remove the quotes)",
        ),
        (
            "models__vit__epochs",
            "25",
            "models.vit.epochs is '25': Input should be a valid integer "
            "(a quoted number is text: remove the quotes)",
        ),
        ("lr", True, "lr is True: Input should be a valid number"),
        ("seed", False, "seed is False: Input should be a valid integer"),
        ("models__vit__depth", True, "models.vit.depth is True: Input should be a valid integer"),
        ("models__vit__depth", 2.0, "models.vit.depth is 2.0: Input should be a valid integer"),
        (
            "models__vit__augment__flip",
            True,
            "flip is True: Input should be 'random' or 'alternating'",
        ),
        (
            "models__vit__augment__flip",
            "none",
            "models.vit.augment.flip is 'none': Input should be 'random' or 'alternating'",
        ),
        ("evaluate__tta", "none", "evaluate.tta is 'none': Input should be 'flip'"),
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
            "models.vit.augment.randaugment: `omit` lists every operation",
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
        ("data__train_size", 0, "data.train_size is 0: Input should be greater than or equal to 1"),
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
            f"models.vit.arch is 'vitt': allowed: {', '.join(map(repr, ARCHES))}",
        ),
        ("models__vit__arch", None, "models.vit.arch is null: allowed: 'vit', 'vit_conv'"),
        (
            "models__vit__optimizer__name",
            "adam",
            "models.vit.optimizer.name is 'adam': allowed: 'adamw', 'sgd', 'muon'",
        ),
        (
            "models__vit__optimizer",
            "adamw",
            "models.vit.optimizer is 'adamw': expected a section; its keys: name (adamw, ",
        ),
        ("data", None, "data is null: expected a section; its keys: source, "),
        ("models", [1], "models is [1]: expected a section of `key: value` lines"),
        ("models", {}, "models is {}: allowed: at least one entry"),
        (
            "models__convmixer__kernel",
            4,
            "models.convmixer.kernel: 4 is even; allowed: 1, 3, 5, 7 …",
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
            DELETED,
            "models.resnet18_ln_plateau: `plateau: {factor: …, patience: …}` belongs to",
        ),
        ("data__folder", "photos", "data: `folder` is the path of the images if `source` is"),
        (
            "data__image_size",
            64,
            "data: `image_size` is for `source: folder`; images of cifar10 have 32 × 32 pixels",
        ),
        ("data__source", "folder", "data: `folder` is the path of the images if `source` is"),
        (
            "data__source",
            "synthetic",
            "data: synthetic images can be any number: give `train_size` and `test_size`",
        ),
        (
            "report__baselines__vitt",
            "some.csv",
            "report.baselines.vitt is not a model; "
            f"the models are: {', '.join(CONTENT['models'])}",
        ),
        ("models__ViT", CONTENT["models"]["vit"], "models.ViT is 'ViT': a model's name is"),
        ("models__../x", CONTENT["models"]["vit"], "models.../x is '../x': a model's name is"),
        ("models__-x", CONTENT["models"]["vit"], "models.-x is '-x': a model's name is"),
    ],
)  # fmt: skip
def test_wrong_value_is_refused_with_allowed_values(
    file: Path, path: str, value: Any, expected: str
) -> None:
    (error,) = refusal(file, FULL, **{path: value})
    assert expected in error
    assert path.rpartition("__")[0].replace("__", ".") in error


@pytest.mark.parametrize("missing", ["train_size", "test_size"])
def test_synthetic_source_needs_both_sizes(file: Path, missing: str) -> None:
    sizes = {"data__train_size": 100, "data__test_size": 50, f"data__{missing}": None}
    (error,) = refusal(file, data__source="synthetic", **sizes)
    assert "give `train_size` and `test_size`" in error


def test_narrow_resnet_is_refused(file: Path) -> None:
    (error,) = refusal(file, models__resnet18_ln__width=12)
    assert error.startswith("models.resnet18_ln.width is 12: Input should be greater than or equal")


def test_public_labels_require_cifar10(file: Path) -> None:
    labels = {"human": "h.npy"}
    params = accepted(file, report__labels=labels)
    assert params.report.labels is not None
    assert params.report.labels.human == "h.npy"
    accepted(file, report__labels=labels, data__source="folder", data__folder="cifar10-exact")
    synthetic = {"data__source": "synthetic", "data__train_size": 100, "data__test_size": 20}
    (error,) = refusal(file, report__labels=labels, **synthetic)
    assert (
        error == "report.labels.human is about CIFAR-10's test images, and data.source is synthetic"
    )


def test_explanation_method_is_required_per_architecture(file: Path) -> None:
    assert refusal(file, gradcam__method__convmixer=DELETED, gradcam__method__vit=DELETED) == [
        "gradcam.method.vit is missing", "gradcam.method.convmixer is missing",
    ]  # fmt: skip


def test_method_of_unused_architecture_is_accepted(file: Path) -> None:
    content = changed(models={"a": CONTENT["models"]["convmixer"]}, report__baselines={})
    assert accepted(file, content).explanation_method("a") == "layercam"


@pytest.mark.parametrize("method", get_args(AttentionMethod))
def test_attention_method_needs_attention(file: Path, method: str) -> None:
    assert accepted(file, gradcam__method__vit=method).explanation_method("vit") == method
    assert refusal(file, gradcam__method__convmixer=method) == [
        f"gradcam.method.convmixer is {method!r}, which needs attention; allowed: "
        f"{', '.join(get_args(GeneralMethod))}"
    ]


def test_unknown_explanation_method_gives_one_error(file: Path) -> None:
    (error,) = refusal(file, gradcam__method__vit="camgrad")
    *names, last = map(repr, [*get_args(GeneralMethod), *get_args(AttentionMethod)])
    allowed = f"{', '.join(names)} or {last}"
    assert error == f"gradcam.method.vit is 'camgrad': Input should be {allowed}"


def test_validation_is_required_where_used(file: Path) -> None:
    keep, schedule = refusal(file, data__val_size=0)
    assert keep == "train.keep: best needs a validation split, and data.val_size is 0"
    plateau = "models.resnet18_ln_plateau.schedule: plateau needs a validation split"
    assert plateau in schedule
    (error,) = refusal(file, data__val_size=0, train__keep="last")
    assert plateau in error
    assert "keep" not in error


def test_unneeded_validation_split_may_be_empty(file: Path) -> None:
    params = accepted(
        file,
        data__val_size=0,
        train__keep="last",
        models__resnet18_ln_plateau=DELETED,
        report__baselines={},
    )
    assert params.data.val_size == 0


def test_all_errors_are_reported_at_once(file: Path) -> None:
    errors = refusal(
        file,
        lr="abc",
        train__precison="auto",
        train__precision=DELETED,
        models__convmixer__kernel=-1,
        models__vit__schedule="plateau",
        models__vit_t2t__arch="swin",
    )
    keys = [error.split(" ")[0].rstrip(":") for error in errors]
    assert keys == [
        "lr", "train.precision", "train.precison", "models.vit", "models.vit_t2t.arch",
        "models.convmixer.kernel",
    ]  # fmt: skip


def test_disagreements_are_reported_with_other_errors(file: Path) -> None:
    errors = refusal(
        file,
        lr="abc",
        data__val_size=0,
        gradcam__method__resnet18_ln="attention_rollout",
        report__baselines={"vitt": "some.csv"},
    )
    assert [error.split(" ")[0] for error in errors] == [
        "lr", "train.keep:", "models.resnet18_ln_plateau.schedule:", "gradcam.method.resnet18_ln",
        "report.baselines.vitt",
    ]  # fmt: skip


def test_long_value_is_shortened(file: Path) -> None:
    (error,) = refusal(file, lr="a" * 500)
    assert len(error) < 120


def test_mixing_probabilities_above_one_are_refused(file: Path) -> None:
    mixing = {
        "mixup": {"probability": 0.7, "alpha": 1.0},
        "cutmix": {"probability": 0.6, "alpha": 1},
    }
    (error,) = refusal(file, models__vit__augment=mixing)
    assert (
        "models.vit.augment: `mixup.probability` 0.7 and `cutmix.probability` 0.6 add up to 1.3; "
        "allowed: at most 1" in error
    )
