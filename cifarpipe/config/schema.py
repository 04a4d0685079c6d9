"""The schema of `params.yaml`: every knob of the study, its type, range and meaning.

Strict and without hidden defaults: every key stands in the file, an unknown one is refused, and all
faults of the whole file are reported at once.
"""

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
    model_validator,
)

from cifarpipe.config.errors import UserError

PARAMS_FILE = Path("params.yaml")
FAULT_SEPARATOR = "\n"

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
        if set(self.omit) == set(get_args(RandAugmentOperation)):
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


class Muon(Section):
    """Orthogonalised momentum for the kernels inside the network, AdamW for all else.

    All else: the first and the last layer, depthwise convolutions, biases, norms, class token and
    positions. Queries, keys and values are kernels of their own: cifarpipe/training/muon.py.
    """

    name: Literal["muon"]
    momentum: Fraction
    nesterov: bool
    betas: tuple[Fraction, Fraction] = Field(strict=False)
    """Of AdamW."""
    weight_decay: NonNegativeFloat
    decay_on: Literal["weights", "all"]


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
    optimizer: Annotated[AdamW | SGD | Muon, Field(discriminator="name")]
    clip_norm: PositiveFloat | None
    """Largest 2-norm of all gradients together; null does not clip."""
    label_smoothing: Fraction
    ema: Fraction
    """Decay per step of a moving average of the weights, which is then what is kept; 0: none."""
    augment: Augment

    @property
    def architecture(self) -> dict[str, Any]:
        """What makes the network, without what trains it."""
        return self.model_dump(mode="json", exclude=set(Recipe.model_fields))

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
    pool: Literal["class", "mean"]
    """What the answer is read from: a class token, or the mean of the tokens of all patches."""
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
    width: Annotated[int, Field(ge=16)]
    """Channels of the first stage; each further one has twice as many.

    Below 16, PyTorch 2.15 on a CPU writes past the weight gradient of a strided 1 × 1 convolution
    (channels last, threads that do not divide the batch), and the process dies.
    """
    strides: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = Field(strict=False)
    """Of the four stages."""


ModelEntry: TypeAlias = Annotated[ViT | ConvMixer | ResNet18LN, Field(discriminator="arch")]


class Evaluate(Section):
    """How the test split is measured."""

    batch_size: PositiveInt
    calibration_bins: PositiveInt
    """Equal-width bins of the expected calibration error."""
    tta: Literal["none", "flip"]
    """Test-time augmentation, for an accuracy beside the others: the mirror image is asked too."""


class Misclassified(Section):
    """Which errors are gathered."""

    count: PositiveInt
    """Errors, and as many correct images."""
    seed: NonNegativeInt


CamMethod: TypeAlias = Literal[
    "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "eigencam"
]
AttentionMethod: TypeAlias = Literal["gradient_attention", "attention_rollout"]


class Methods(Section):
    """What makes the maps of each architecture; docs/explanations.md compares them."""

    vit: CamMethod | AttentionMethod
    convmixer: CamMethod
    resnet18_ln: CamMethod


class GradCam(Section):
    """How test images are explained, and how far the explanations are put to the test."""

    method: Methods
    batch_size: PositiveInt
    opacity: Annotated[float, Field(gt=0, le=1)]
    """Of the map where it is strongest, laid over the picture."""
    removal_images: NonNegativeInt
    """Test images from which pixels are removed to see whether the maps know what matters."""
    seed: NonNegativeInt
    """Of the choice of those, of what fills them and of the maps that know nothing."""


class PublicLabelFiles(Section):
    """Files that others published about CIFAR-10's test images, where the user has them."""

    contested: str | None
    """`mturk/cifar10_mturk.json` of the repository cleanlab/label-errors."""
    duplicates: str | None
    """`meta/duplicates_cifar10.csv` of the repository cvjena/cifair."""
    human: str | None
    """`data/cifar10h-counts.npy` of the repository jcpeterson/cifar-10h."""


class Report(Section):
    """What the summary report shows."""

    title: Annotated[str, Field(min_length=1, max_length=200)]
    baselines: dict[ModelName, str]
    """Per model: a csv of an earlier run's curve, drawn behind ours on CIFAR-10."""
    labels: PublicLabelFiles


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

    def cam_method(self, name: str) -> str:
        """Return what explains model `name`, as `gradcam.method` says for its architecture."""
        return str(getattr(self.gradcam.method, self.model(name).arch))


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
    if report and data and data.source != "cifar10":
        faults += [
            f"report.labels.{key} is about CIFAR-10's own test images, and data.source is "
            f"{data.source}"
            for key, path in report.labels
            if path is not None
        ]
    if report and models:
        faults += [
            f"report.baselines.{name} names no model; the models are: {', '.join(models)}"
            for name in report.baselines
            if name not in models
        ]
    return faults
