"""The schema of `params.yaml`: every key of the study, its type, range and meaning.

Strict: an unknown key is refused, and all errors of the whole file are reported at once. There is
no inheritance; a key that may be left out is off when it is absent.
"""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field, PositiveInt, model_validator

from cifarpipe.config.architectures import ARCHITECTURES, WITH_ATTENTION, ModelEntry
from cifarpipe.config.errors import UserError
from cifarpipe.config.sections import OFF_IF_ABSENT, Count, CountFrom0, Section, Seed

PARAMS_FILE = Path("params.yaml")
ERROR_SEPARATOR = "\n"

# A name becomes a folder, a DVC stage and a command-line argument.
ModelName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=60)]


class Data(Section):
    """Where the images come from and how they are split."""

    source: Literal["cifar10", "folder", "synthetic"]
    folder: str | None
    """For `source: folder`: holds `train/<class>/*` and `test/<class>/*`; relative to the raw-data
    root."""
    val_size: CountFrom0
    """Images held out of train for validation, stratified by class."""
    train_size: Count | None
    """Images to train on, besides the held-out ones; null takes all that are left."""
    test_size: Count | None
    """Images of the test split, stratified; null takes all."""
    image_size: Annotated[int | None, Field(ge=8, le=1024), OFF_IF_ABSENT] = None
    """For `source: folder`: crop images to their central square and resize them to this height and
    width. If absent, they are square and all of one size."""

    @model_validator(mode="after")
    def _fits_source(self) -> "Data":
        if (self.source == "folder") != (self.folder is not None):
            raise ValueError(
                "`folder` is the path of the images if `source` is folder, and null otherwise"
            )
        if self.image_size is not None and self.source != "folder":
            raise ValueError(
                f"`image_size` is for `source: folder`; images of {self.source} have 32 × 32 pixels"
            )
        if self.source == "synthetic" and (self.train_size is None or self.test_size is None):
            raise ValueError(
                "synthetic images can be any number: give `train_size` and `test_size`"
            )
        return self


class Train(Section):
    """How every model is trained, whatever its recipe."""

    precision: Literal["auto", "bf16", "fp32"]
    """auto: bf16 where the device computes it natively, else fp32."""
    compile: Literal["auto", "always", "never"]
    """Use torch.compile. auto: on a GPU; on a CPU if it clearly saves more time than it takes."""
    devices: PositiveInt
    """GPUs that train one model together; without a GPU, processes on the CPU."""
    keep: Literal["best", "last"]
    """Which epoch's weights to keep: the best on validation, or the last."""


class Evaluate(Section):
    """How the test split is evaluated."""

    batch_size: Count
    calibration_bins: Annotated[int, Field(ge=1, le=1000)]
    """Of the calibration errors, and of the reliability diagram."""
    tta: Annotated[Literal["flip"] | None, OFF_IF_ABSENT] = None
    """Test-time augmentation: an additional accuracy, of the mean logits of each image and its
    mirror image."""


class Misclassified(Section):
    """Which errors are gathered."""

    count: Count
    """Errors, and as many correct images."""
    seed: Seed


GeneralMethod: TypeAlias = Literal[
    "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "eigencam"
]
AttentionMethod: TypeAlias = Literal["libragrad", "gradient_attention", "attention_rollout"]
Method: TypeAlias = Literal[GeneralMethod, AttentionMethod]


class GradCam(Section):
    """How test images are explained, and how the explanations are evaluated."""

    method: dict[str, Method]
    """For each architecture; docs/explanations.md compares the methods."""
    batch_size: Count
    opacity: Annotated[float, Field(gt=0, le=1)]
    """Of a map's strongest point in figures; changes no map."""
    removal_images: CountFrom0
    """Number of random test images for the quality metrics of the maps.

    Metrics that use masks, and the counts of maps without evidence, use all.
    """
    seed: Seed
    """Of all random draws of the stage."""


class PublicLabelFiles(Section):
    """Published files about CIFAR-10's test labels, where the user has them."""

    contested: Annotated[str | None, OFF_IF_ABSENT] = None
    """`mturk/cifar10_mturk.json` of the repository cleanlab/label-errors."""
    duplicates: Annotated[str | None, OFF_IF_ABSENT] = None
    """`meta/duplicates_cifar10.csv` of the repository cvjena/cifair."""
    human: Annotated[str | None, OFF_IF_ABSENT] = None
    """`data/cifar10h-counts.npy` of the repository jcpeterson/cifar-10h."""


class Report(Section):
    """What the report shows."""

    title: Annotated[str, Field(min_length=1, max_length=200)]
    baselines: Annotated[dict[ModelName, str] | None, OFF_IF_ABSENT] = None
    """For a model: a CSV file of a baseline run's curve, drawn behind ours on CIFAR-10."""
    labels: Annotated[PublicLabelFiles | None, OFF_IF_ABSENT] = None


class Params(Section):
    """The whole file."""

    seed: Seed
    lr: Annotated[float, Field(gt=0)]
    data: Data
    train: Train
    models: Annotated[dict[ModelName, ModelEntry], Field(min_length=1)]
    evaluate: Evaluate
    misclassified: Misclassified
    gradcam: GradCam
    report: Report

    @model_validator(mode="after")
    def _sections_agree(self) -> "Params":
        sections = {name: getattr(self, name) for name in AGREEING}
        if errors := disagreements(**sections):
            raise ValueError(ERROR_SEPARATOR.join(errors))
        return self

    def model(self, name: str) -> ModelEntry:
        """Return the entry called `name`; `UserError` if there is none."""
        if name not in self.models:
            raise UserError(
                f"unknown model {name!r}; {PARAMS_FILE} has: {', '.join(self.models)}.\n"
                f"Add an entry `models.{name}` there, or use one of these."
            )
        return self.models[name]

    def explanation_method(self, name: str) -> str:
        """Return the method that explains model `name`: `gradcam.method` of its architecture."""
        return self.gradcam.method[self.model(name).arch]


AGREEING = ("data", "train", "models", "gradcam", "report")


def disagreements(
    data: Data | None,
    train: Train | None,
    models: dict[str, ModelEntry] | None,
    gradcam: GradCam | None,
    report: Report | None,
) -> list[str]:
    """Return what does not fit together between sections, each None if not valid by itself."""
    models = models or {}
    errors = []
    if data and data.val_size == 0:
        errors += _without_validation(train, models)
    if gradcam:
        errors += _method_errors(gradcam, models)
    if report:
        errors += _report_errors(report, data, models)
    return errors


def _without_validation(train: Train | None, models: dict[str, ModelEntry]) -> list[str]:
    errors = []
    if train and train.keep == "best":
        errors.append("train.keep: best needs a validation split, and data.val_size is 0")
    errors += [
        f"models.{name}.schedule: plateau needs a validation split, and data.val_size is 0"
        for name, model in models.items()
        if model.schedule == "plateau"
    ]
    return errors


def _method_errors(gradcam: GradCam, models: dict[str, ModelEntry]) -> list[str]:
    used = dict.fromkeys(model.arch for model in models.values())
    errors = [f"gradcam.method.{arch} is missing" for arch in used if arch not in gradcam.method]
    errors += [
        f"gradcam.method.{arch} is not an architecture; known: {', '.join(ARCHITECTURES)}"
        for arch in gradcam.method
        if arch not in ARCHITECTURES
    ]
    errors += [
        f"gradcam.method.{arch} is {method!r}, which needs attention; allowed: "
        f"{', '.join(get_args(GeneralMethod))}"
        for arch, method in gradcam.method.items()
        if method in get_args(AttentionMethod) and arch not in WITH_ATTENTION
    ]
    return errors


def _report_errors(report: Report, data: Data | None, models: dict[str, ModelEntry]) -> list[str]:
    errors = []
    if report.labels and data and data.source == "synthetic":
        errors += [
            f"report.labels.{key} is about CIFAR-10's test images, and data.source is synthetic"
            for key in report.labels.given()
        ]
    if models:
        errors += [
            f"report.baselines.{name} is not a model; the models are: {', '.join(models)}"
            for name in report.baselines or {}
            if name not in models
        ]
    return errors
