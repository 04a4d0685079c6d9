"""The schema of `params.yaml`: every knob of the study, its type, range and meaning.

Strict and without hidden defaults: every key stands in the file, an unknown one is refused, and all
faults of the whole file are reported at once.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from cifarpipe.errors import UserError

PARAMS_FILE = Path("params.yaml")
FAULT_SEPARATOR = "\n"
HOW_TO_UNDO = (
    "Mend the file, or take back all changes to it with `git checkout params.yaml` "
    "(a refused `dvc exp run -S …` leaves its value in the file)."
)

Fraction: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
# A name becomes a folder, a DVC stage and a command-line argument.
ModelName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=60)]


class Section(BaseModel):
    """Base of all sections: frozen, strict types, extra keys forbidden."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Data(Section):
    """Where the images come from and how they are split."""

    source: Literal["cifar10", "folder", "synthetic"]
    folder: str | None
    """For `folder`: holds `train/<class>/*` and `test/<class>/*`; relative to the raw-data root."""
    val_size: NonNegativeInt
    """Images held out of train, stratified by class."""
    train_size: PositiveInt | None
    """Images to train on, beside the held-out ones; null takes all that are left."""
    test_size: PositiveInt | None
    """Images of the test split, stratified; null takes all."""

    @model_validator(mode="after")
    def _fits_source(self) -> "Data":
        if (self.source == "folder") != (self.folder is not None):
            raise ValueError(
                "`folder` names the pictures' folder when `source` is folder, else it is null"
            )
        if self.source == "synthetic" and (self.train_size is None or self.test_size is None):
            raise ValueError(
                "synthetic images have no natural number: give `train_size` and `test_size`"
            )
        return self


class Train(Section):
    """How every model is trained, whatever its recipe."""

    precision: Literal["auto", "bf16", "fp32"]
    """auto: bf16 where the device computes it natively, else fp32."""
    compile: Literal["auto", "always", "never"]
    """By torch.compile. auto: where it saves clearly more time in a run than it takes."""
    devices: PositiveInt
    """GPUs that train one model together; without GPU, processes on the CPU."""
    keep: Literal["best", "last"]
    """Which epoch's weights are kept: the best on validation, or the last."""


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"{list(pair)} is not in order; allowed: [smallest, largest]")
    return pair


Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Area: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Areas: TypeAlias = Annotated[tuple[Area, Area], Field(strict=False), AfterValidator(_ascending)]
Ratios: TypeAlias = Annotated[
    tuple[PositiveFloat, PositiveFloat], Field(strict=False), AfterValidator(_ascending)
]

RandAugmentOperation: TypeAlias = Literal[
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness",
    "color", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
]  # fmt: skip
RANDAUGMENT_OPERATIONS: tuple[str, ...] = get_args(RandAugmentOperation)


class RandAugment(Section):
    """A few operations per image, drawn from a list (arXiv:1909.13719)."""

    n: Annotated[int, Field(ge=0, le=10)]
    """How many; 0 does nothing."""
    m: Annotated[int, Field(ge=0, le=30)]
    """How strong, of 0 … 30."""
    omit: tuple[RandAugmentOperation, ...] = Field(strict=False)
    """Operations of the standard list that are not to be drawn."""

    @model_validator(mode="after")
    def _something_is_left(self) -> "RandAugment":
        if set(self.omit) == set(RANDAUGMENT_OPERATIONS):
            raise ValueError("`omit` names every operation, and none is left to draw")
        return self


class ResizedCrop(Section):
    """A rectangle of the picture, enlarged to its size; two times [1.0, 1.0] does nothing."""

    scale: Areas
    """Smallest and largest area, as a part of the picture's."""
    ratio: Ratios
    """Smallest and largest width as a multiple of height."""


class ColorJitter(Section):
    """Changes of colour; 0 does nothing."""

    brightness: NonNegativeFloat
    """The factor is drawn from 1 ± this, never below 0; likewise the next two."""
    contrast: NonNegativeFloat
    saturation: NonNegativeFloat
    hue: Annotated[float, Field(ge=0, le=0.5)]
    """Largest shift either way, in turns of the colour wheel."""


class Erasing(Section):
    """A blanked rectangle in some images (arXiv:1708.04896)."""

    probability: Probability
    scale: Areas
    """Smallest and largest area, as a part of the picture's."""
    ratio: Ratios
    """Smallest and largest height as a multiple of width."""


class Mix(Section):
    """Mixing of two images and labels: mixup (arXiv:1710.09412) or cutmix (arXiv:1905.04899)."""

    probability: Probability
    """Of an image to be mixed in this way."""
    alpha: PositiveFloat
    """The share is drawn from Beta(alpha, alpha)."""


class Augment(Section):
    """Random changes of a training image, drawn anew for every image in every epoch.

    In which order they apply: cifarpipe/augment/pipeline.py.
    """

    crop: NonNegativeInt
    """Pixels of black padding on each side before a random crop back to size."""
    resized_crop: ResizedCrop
    flip: Literal["none", "random", "alternating"]
    """Mirror left to right: in half of the cases, or in every second epoch (arXiv:2404.00498)."""
    randaugment: RandAugment
    color_jitter: ColorJitter
    rotate: Annotated[float, Field(ge=0, le=180)]
    """Largest rotation to either side, in degrees."""
    erasing: Erasing
    cutout: NonNegativeInt
    """Side of the square that is blanked, in pixels."""
    mixup: Mix
    cutmix: Mix

    @model_validator(mode="after")
    def _mixed_at_most_once(self) -> "Augment":
        total = self.mixup.probability + self.cutmix.probability
        if total > 1:
            raise ValueError(
                f"`mixup.probability` {self.mixup.probability:g} and `cutmix.probability` "
                f"{self.cutmix.probability:g} add up to {total:g}; allowed: at most 1, since an "
                f"image is mixed in one way or the other"
            )
        return self


class AdamW(Section):
    """Adam with decoupled weight decay (arXiv:1711.05101)."""

    name: Literal["adamw"]
    betas: tuple[Fraction, Fraction] = Field(strict=False)
    weight_decay: NonNegativeFloat
    decay_on: Literal["weights", "all"]
    """weights: kernels alone; biases, norms, class token and positions are left as they are."""


class SGD(Section):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"]
    momentum: Fraction
    nesterov: bool
    weight_decay: NonNegativeFloat
    decay_on: Literal["weights", "all"]

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "SGD":
        if self.nesterov and self.momentum == 0:
            raise ValueError("`nesterov: true` needs a `momentum` above 0")
        return self


class Plateau(Section):
    """When the plateau schedule lowers the rate."""

    factor: Annotated[float, Field(gt=0, lt=1)]
    """The rate is multiplied by this."""
    patience: NonNegativeInt
    """Epochs without a lower validation loss that are let pass before that."""


class Recipe(Section):
    """How one model is trained; each architecture adds its own keys to these."""

    epochs: PositiveInt
    batch_size: PositiveInt
    lr_scale: PositiveFloat
    """The model's peak rate is `lr` × this."""
    schedule: Literal["triangular", "onecycle", "cosine", "plateau"]
    warmup: Fraction
    """Part of the run in which the rate rises to its peak."""
    plateau: Plateau | None
    optimizer: Annotated[AdamW | SGD, Field(discriminator="name")]
    clip_norm: PositiveFloat | None
    """Largest 2-norm of all gradients together; null does not clip."""
    label_smoothing: Fraction
    ema: Fraction
    """Decay per step of a moving average of the weights, which is then what is kept; 0: none."""
    augment: Augment

    @model_validator(mode="after")
    def _plateau_belongs(self) -> "Recipe":
        if (self.schedule == "plateau") != (self.plateau is not None):
            raise ValueError(
                "`plateau: {factor: …, patience: …}` belongs to `schedule: plateau`; "
                "with any other schedule it is null"
            )
        return self


class ViT(Recipe):
    """Vision transformer whose linear layers are 1 × 1 convolutions."""

    arch: Literal["vit"]
    patch: PositiveInt
    dim: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    head_dim: PositiveInt
    mlp_dim: PositiveInt
    dropout: Fraction
    """Each of several processes draws its own."""

    @model_validator(mode="after")
    def _heads_fill_dim(self) -> "ViT":
        if self.dim % self.heads:
            raise ValueError(
                f"`dim` {self.dim} is not divisible by `heads` {self.heads}; "
                f"allowed: a multiple, e.g. {self.dim - self.dim % self.heads + self.heads}"
            )
        return self


class ConvMixer(Recipe):
    """ConvMixer."""

    arch: Literal["convmixer"]
    patch: PositiveInt
    dim: PositiveInt
    depth: PositiveInt
    kernel: PositiveInt

    @model_validator(mode="after")
    def _kernel_is_odd(self) -> "ConvMixer":
        if self.kernel % 2 == 0:
            raise ValueError(f"`kernel` {self.kernel} is even; allowed: 1, 3, 5, 7 …")
        return self


class ResNet18LN(Recipe):
    """ResNet-18 with layer norm, GroupNorm(1, C), in place of every batch norm."""

    arch: Literal["resnet18_ln"]
    width: PositiveInt
    """Channels of the first stage; each further one has twice as many."""
    strides: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = Field(strict=False)
    """Of the four stages."""


ModelEntry: TypeAlias = Annotated[ViT | ConvMixer | ResNet18LN, Field(discriminator="arch")]


class Evaluate(Section):
    """How the test split is measured."""

    batch_size: PositiveInt
    calibration_bins: PositiveInt
    """Equal-width bins of the expected calibration error."""


class Misclassified(Section):
    """Which errors are gathered."""

    count: PositiveInt
    """Errors, and as many correct images."""
    seed: NonNegativeInt


class GradCam(Section):
    """How the gathered images are explained."""

    batch_size: PositiveInt
    opacity: Annotated[float, Field(gt=0, le=1)]
    """Of the map where it is strongest, laid over the picture."""
    mask_images: NonNegativeInt
    """Correct test images whose maps are compared with the object's mask, where masks exist."""


class Report(Section):
    """What the summary report shows."""

    title: Annotated[str, Field(min_length=1, max_length=200)]
    baselines: dict[ModelName, str]
    """Per model: a csv of an earlier run's curve, drawn behind ours on CIFAR-10."""


class Params(Section):
    """The whole file."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    lr: PositiveFloat
    data: Data
    train: Train
    models: Annotated[dict[ModelName, ModelEntry], Field(min_length=1)]
    evaluate: Evaluate
    misclassified: Misclassified
    gradcam: GradCam
    report: Report

    @model_validator(mode="after")
    def _sections_agree(self) -> "Params":
        if faults := disagreements(self.data, self.train, self.models, self.report):
            raise ValueError(FAULT_SEPARATOR.join(faults))
        return self

    def model(self, name: str) -> ModelEntry:
        """Return the entry called `name`; `UserError` if there is none."""
        if name not in self.models:
            raise UserError(
                f"unknown model {name!r}; {PARAMS_FILE} has: {', '.join(self.models)}.\n"
                f"Add an entry `models.{name}` there, or name one of these."
            )
        return self.models[name]

    def peak_lr(self, name: str) -> float:
        """Return the highest learning rate that model `name` reaches: `lr` × its `lr_scale`."""
        return self.lr * self.model(name).lr_scale


def disagreements(
    data: Data | None,
    train: Train | None,
    models: dict[str, ModelEntry] | None,
    report: Report | None,
) -> list[str]:
    """Name what does not fit together; a section that is not valid by itself is left out."""
    faults = []
    if data and data.val_size == 0:
        if train and train.keep == "best":
            faults.append("train.keep: best needs a validation split, and data.val_size is 0")
        faults += [
            f"models.{name}.schedule: plateau needs a validation split, and data.val_size is 0"
            for name, model in (models or {}).items()
            if model.schedule == "plateau"
        ]
    if report and models:
        faults += [
            f"report.baselines.{name} names no model; the models are: {', '.join(models)}"
            for name in report.baselines
            if name not in models
        ]
    return faults


def load_params(path: str | Path = PARAMS_FILE) -> Params:
    """Read and validate the whole parameter file.

    Raises:
        UserError: The file can't be read, or holds any fault; all of them are named.
    """
    raw = _read_yaml(Path(path))
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        faults = [line for fault in error.errors() for line in _explain(fault)]
        if isinstance(raw, dict) and any(fault["loc"] for fault in error.errors()):
            faults += disagreements(*(_valid_section(raw, name) for name in _AGREEING))
    lines = "\n".join(f"  - {fault}" for fault in faults)
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    raise UserError(f"{path} has {count}:\n{lines}\n{HOW_TO_UNDO}")


_AGREEING = ("data", "train", "models", "report")  # the arguments of `disagreements`


def _valid_section(raw: dict[Any, Any], name: str) -> Any:
    """Return one section if it is valid by itself, else nothing."""
    try:
        annotation: Any = Params.model_fields[name].annotation
        return TypeAdapter(annotation).validate_python(raw.get(name))
    except ValidationError:
        return None


def _read_yaml(path: Path) -> Any:
    """Read what DVC reads, by the same package: YAML 1.2, where 1e-3 is a number and `no` is text.

    A key that stands twice is refused, and so are aliases: `-S` changes an anchored value in one
    place and silently keeps the old one in the other.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist in {Path.cwd().name}/. Run from the project's root folder."
        )
    reader = YAML(typ="safe", pure=True)
    try:
        text = path.read_text(encoding="utf-8")
        for event in reader.parse(text) if "&" in text else ():  # without an anchor, no alias
            if isinstance(event, AliasEvent):
                line = event.start_mark.line + 1
                raise ValueError(f"line {line}: *{event.anchor} is an alias; write the value out")
        return reader.load(text)
    except (YAMLError, RecursionError, LookupError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason.partition(" To suppress this check")[0]  # it would send users elsewhere
        raise UserError(f"{path} is not valid YAML: {reason}\n{HOW_TO_UNDO}") from None


def _explain(fault: ErrorDetails) -> list[str]:
    """Say in a line each which key is wrong, what it holds and what is allowed."""
    # Pydantic names the chosen member of a union (`vit`, `adamw`) as if it were a key.
    location = [str(part) for part in fault["loc"]]
    if len(location) > 2 and location[0] == "models":
        del location[2]
        if len(location) > 3 and location[2] == "optimizer":
            del location[3]
    key = ".".join(part for part in location if part != "[key]") or "(the whole file)"
    value, kind = fault["input"], fault["type"]
    message = fault["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return [f"{key} is missing"]
    if kind == "extra_forbidden":
        return [f"{key} is not a known key (misspelt, or not for this section)"]
    if kind == "value_error":
        return [f"{key}: {message}"] if location else message.split(FAULT_SEPARATOR)
    if kind == "string_pattern_mismatch":
        message = "a model's name is lower-case letters, digits, - and _, a letter first"
    elif kind == "union_tag_not_found":
        message = f"{_tag(fault)} is missing"
    elif kind == "union_tag_invalid":
        value = value.get(_tag(fault)) if isinstance(value, dict) else value
        key = f"{key}.{_tag(fault)}"
        message = f"allowed: {fault['ctx']['expected_tags']}"
    elif kind in {"model_type", "model_attributes_type", "dict_type"}:
        message = "a section of `key: value` lines is wanted here"
    elif isinstance(value, str) and kind in {"float_type", "int_type"}:
        message += " (a quoted number is text: take the quotes away)" if _is_number(value) else ""
    return [f"{key} is {_shown(value)}: {message}"]


def _tag(fault: ErrorDetails) -> str:
    return str(fault["ctx"]["discriminator"]).strip("'")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _shown(value: Any) -> str:
    try:
        text = "null" if value is None else repr(value)
    except ValueError:  # Python refuses to write out whole numbers of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "…"
