"""Everything that computes on a GPU, run on an imaginary one, whose tensors have no values.

It finds tensors of another device, operations that wait for the GPU and operations without a
deterministic kernel; no speeds and no wrong results.
"""

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from cifarpipe.augment.pipeline import Augmentation
from cifarpipe.config.reader import load_params
from cifarpipe.config.recipes import Augment
from cifarpipe.explanations import embedding
from cifarpipe.explanations.gradcam import GRAD_CAM_METHODS
from cifarpipe.explanations.methods import map_maker, methods_for
from cifarpipe.explanations.neighbours import search
from cifarpipe.models.build import build_model
from cifarpipe.networks.images import ImageStore
from cifarpipe.networks.inference import compute_logits
from cifarpipe.training.batches import AugmentedBatches, Batch
from cifarpipe.training.distributed import Share, World
from cifarpipe.training.execution import Execution
from cifarpipe.training.state import TrainingState
from cifarpipe.training.step import EagerStep
from tests.support.architectures import MODEL_OF_ARCHITECTURE
from tests.support.fake_cuda import backward, fake_cuda, grad
from tests.support.origins import make_origin
from tests.support.params_text import AUGMENT, EXAMPLE

pytestmark = pytest.mark.thorough

PARAMS = load_params(EXAMPLE)
MODELS = pytest.mark.parametrize("name", PARAMS.models)
EVERY_ARCHITECTURE = pytest.mark.parametrize("name", MODEL_OF_ARCHITECTURE.values())
SIZE = 6
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    with fake_cuda(monkeypatch) as device:
        yield device


def build(name: str, device: torch.device) -> nn.Module:
    with device:
        return build_model(PARAMS.models[name].architecture, num_classes=10, image_size=32)


def make_batch(device: torch.device) -> Batch:
    inputs = torch.zeros(SIZE, 3, 32, 32, device=device)
    return Batch(inputs, torch.zeros(SIZE, dtype=torch.int64, device=device), Share(0, SIZE, 0.1))


@MODELS
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_train_step_runs_on_gpu(name: str, precision: str, gpu: torch.device) -> None:
    recipe = PARAMS.models[name].model_copy(update={"ema": 0.99})
    execution = Execution(gpu, precision)
    state = TrainingState(execution.place(build(name, gpu)), recipe, precision)
    step = EagerStep(state, recipe, execution, state.model)
    loss, hits = step(make_batch(gpu), 0.1)
    assert loss.device == hits.device == gpu
    assert all(each.grad is not None for each in state.model.parameters())
    assert {tensor.device for tensor in state.tensors()} == {gpu}
    # A CUDA graph would keep the value of a learning rate on the CPU.
    assert {group["lr"].device for group in state.optimizer.param_groups} == {gpu}


# Imaginary draws name every operation of RandAugment.
EVERY_OPERATION = {"randaugment": {"n": 2, "m": 9}}
AUGMENTATIONS: list[dict[str, object]] = [
    *({key: value} for key, value in (AUGMENT | EVERY_OPERATION).items()),
    {"flip": "alternating"},
    {key: AUGMENT[key] for key in ("mixup", "cutmix")},
]


@pytest.mark.parametrize("options", AUGMENTATIONS, ids=",".join)
def test_augmented_batches_lie_on_gpu(options: dict[str, object], gpu: torch.device) -> None:
    augmentation = Augmentation(
        Augment.model_validate(options),
        mean=torch.zeros(3, device=gpu),
        std=torch.ones(3, device=gpu),
        image_size=32,
        classes=10,
        seed=0,
    )
    batches = AugmentedBatches(
        ImageStore(IMAGES, gpu, limit=10**9),
        np.arange(len(IMAGES)) % 10,
        augmentation,
        batch_size=16,
        seed=0,
        world=World(),
    )
    found = list(batches.epoch(1))
    assert [batch.inputs.shape[0] for batch in found] == [16, 16, 8]
    assert {each.device for batch in found for each in (batch.inputs, batch.targets)} == {gpu}


@EVERY_ARCHITECTURE
def test_logits_are_computed_on_gpu(name: str, gpu: torch.device) -> None:
    """Of validation and evaluation."""
    mean, std = torch.zeros(3, device=gpu), torch.ones(3, device=gpu)
    store = ImageStore(IMAGES, gpu, limit=10**9)
    for precision in ("bf16", "fp32"):
        logits = compute_logits(
            build(name, gpu), store, mean=mean, std=std, batch_size=16, precision=precision
        )
        assert (logits.device, logits.shape, logits.dtype) == (gpu, (40, 10), torch.float32)


@EVERY_ARCHITECTURE
def test_maps_are_computed_on_gpu(name: str, gpu: torch.device) -> None:
    model = build(name, gpu).eval()
    batch = torch.zeros(SIZE, 3, 32, 32, device=gpu)
    for method in methods_for(model):
        # Those of grad-cam read the classes on the host, which imaginary tensors do not allow.
        kind = np if method in GRAD_CAM_METHODS else torch
        classes = cast(Any, kind.zeros(SIZE, dtype=kind.int64))
        assert map_maker(model, method)(batch, classes).shape[0] == SIZE, method


@EVERY_ARCHITECTURE
def test_images_are_embedded_and_searched_on_gpu(
    name: str, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "ImageStore", partial(ImageStore, limit=10**9))
    split = SimpleNamespace(images=IMAGES)
    data = cast(Any, SimpleNamespace(train=split, test=split))
    origin = make_origin(name, [str(i) for i in range(10)], precision="bf16")
    found = embedding.embed(build(name, gpu).eval(), origin, data, 16, progress=name)
    assert {each.device for each in (found.train, found.test, found.logits)} == {gpu}
    assert found.logits.shape == (40, 10)
    rows, similarities = search(found.train, found.train, 5, skip_itself=True)
    assert rows.shape == similarities.shape == (40, 5)


def test_own_backward_pass_equals_pytorch() -> None:
    """On tensors with values, with a bias that is broadcast and a node of two outputs."""
    layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 6))

    def loss() -> torch.Tensor:
        first, second = layers(torch.arange(6.0).view(2, 3)).chunk(2, dim=1)
        return (first * second + first).sum()

    expected = torch.autograd.grad(loss(), list(layers.parameters()))
    backward([loss()], [torch.ones(())])
    torch.testing.assert_close([each.grad for each in layers.parameters()], list(expected))
    torch.testing.assert_close(grad(loss(), list(layers.parameters())), expected)
