"""Neighbours in a network's features: against brute force, for every architecture, and on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cifarpipe.config.errors import UserError
from cifarpipe.config.schema import Params
from cifarpipe.explanations import embedding as embedding_module
from cifarpipe.explanations import neighbours as module
from cifarpipe.explanations.embedding import HeadInput, embed
from cifarpipe.explanations.neighbours import find_neighbours, neighbour_votes, search
from cifarpipe.models.build import build_model
from cifarpipe.results.neighbours import Neighbours, load_neighbours, save_neighbours
from cifarpipe.store.prepared import Prepared, Split
from tests.support.architectures import MODEL_OF_ARCHITECTURE
from tests.support.origins import make_origin


def brute_force(queries: np.ndarray, base: np.ndarray, count: int, skip: bool) -> list[list[int]]:
    """Sort all rows of `base` by the cosine of their angle with each query, one by one."""
    found = []
    for i, query in enumerate(queries):
        cosines = [
            -np.inf if skip and i == j else
            float(np.dot(query, row) / np.linalg.norm(query) / np.linalg.norm(row))
            for j, row in enumerate(base)
        ]  # fmt: skip
        found.append(sorted(range(len(base)), key=lambda j, c=cosines: -c[j])[:count])
    return found


@pytest.mark.parametrize("skip", [False, True])
def test_search_equals_brute_force(skip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 7)  # does not divide the number of queries
    rng = np.random.default_rng(0)
    base = rng.normal(size=(30, 6)).astype(np.float32)
    queries = base if skip else rng.normal(size=(17, 6)).astype(np.float32)
    unit = [F.normalize(torch.from_numpy(each), dim=1) for each in (queries, base)]
    rows, similarity = search(*unit, 4, skip_itself=skip)
    assert rows.tolist() == brute_force(queries, base, 4, skip)
    expected = (unit[0] @ unit[1].T).numpy()
    np.testing.assert_allclose(similarity, np.take_along_axis(expected, rows, 1), rtol=1e-6)
    assert (np.diff(similarity, axis=1) <= 0).all()


def test_search_among_few_images_finds_all() -> None:
    one = F.normalize(torch.ones(1, 3), dim=1)
    assert search(one, one, 5)[0].tolist() == [[0]]
    assert search(one, one, 5, skip_itself=True)[0].shape == (1, 0)


@pytest.mark.thorough
@pytest.mark.parametrize("name", MODEL_OF_ARCHITECTURE.values())
def test_features_are_what_the_head_reads(name: str, demo_params: Params) -> None:
    entry = demo_params.models[name]
    torch.manual_seed(0)
    model = build_model(entry.architecture, num_classes=10, image_size=32).eval()
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        features = HeadInput(model)(images)
        expected = F.linear(features.flatten(1), model.head.weight.flatten(1), model.head.bias)
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
    assert not model.head._forward_pre_hooks


def test_network_stays_in_evaluation_mode() -> None:
    """In training mode, batch norm would use and change other statistics."""
    model = OneColour().eval()
    data = Prepared(Path(), {"classes": ["a", "b"]})
    vars(data)["train"] = vars(data)["test"] = colours((1, 2, 3), (4, 5, 6), labels=[0, 1])
    embed(model, make_origin("m", ["a", "b"]), data, 2, "m")
    assert not any(module.training for module in model.modules())


class OneColour(torch.nn.Module):
    """A network whose features are the mean colour of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.mean(dim=(2, 3)))


def colours(*rows: tuple[int, int, int], labels: list[int]) -> Split:
    images = np.array([np.full((4, 4, 3), row) for row in rows], np.uint8)
    return Split(images, np.array(labels), np.arange(len(rows)))


def test_neighbours_of_colours_are_known(tmp_path: Path) -> None:
    data = Prepared(tmp_path, {"classes": ["a", "b"]})
    red, green, blue = (200, 50, 50), (50, 200, 50), (50, 50, 200)
    vars(data)["train"] = colours(red, green, blue, (210, 50, 50), labels=[0, 1, 1, 1])
    vars(data)["test"] = colours((190, 50, 50), green, labels=[0, 1])
    origin = make_origin("m", ["a", "b"], mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    embedding = embed(OneColour(), origin, data, 2, "m")
    assert torch.allclose(embedding.test.norm(dim=1), torch.ones(2))
    assert embedding.logits.shape == (2, 2)
    found = find_neighbours(embedding, data, seed=0)
    assert found.nearest[:, 0].tolist() == [0, 1]
    assert found.nearest[0, 1] == 3
    assert found.nearest.shape == (2, 4)
    assert found.similarity[1, 0] == pytest.approx(1)
    assert not found.votes.any()  # the classes are too small
    assert found.clusters.tolist() == [0, 0]


def test_votes_are_those_of_the_nearest_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEWEST", 2)
    degrees = np.array([0, 1, 2, 3, 1.5, 40, 41, 42, 43, 44])
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])  # the fifth is wrong
    angles = torch.from_numpy(np.radians(degrees))
    votes = neighbour_votes(torch.stack([angles.cos(), angles.sin()], dim=1), labels, 3)
    assert votes.tolist() == [[1, 1, 0]] * 4 + [[3, 0, 0]] + [[0, 3, 0]] * 5


def test_size_of_the_class_decides_how_many_images_vote() -> None:
    features = F.normalize(torch.randn(269, 5, generator=torch.manual_seed(0)), dim=1)
    labels = np.repeat([0, 1, 2, 3], [200, 30, 20, 19])
    votes = neighbour_votes(features, labels, 4).sum(axis=1)
    assert votes.tolist() == [50] * 200 + [15] * 30 + [10] * 20 + [0] * 19


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("trained_in", ["bf16", "fp32"])
def test_training_images_are_embedded_in_bf16_where_it_is_native(
    trained_in: str, native: bool, demo_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_module, "computes_bf16", lambda _device: native)
    torch.manual_seed(0)
    entry = demo_params.models["vit"]
    model = build_model(entry.architecture, num_classes=2, image_size=32).eval()
    data = Prepared(Path(), {"classes": ["a", "b"]})
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    for split in ("train", "test"):
        vars(data)[split] = Split(images, np.zeros(6, np.int64), np.arange(6))
    embedding = embed(model, make_origin("m", ["a", "b"], precision=trained_in), data, 4, "m")
    similarity = (embedding.train * embedding.test).sum(dim=1)
    torch.testing.assert_close(similarity, torch.ones(6), rtol=0, atol=1e-3)
    in_fp32 = torch.allclose(embedding.train, embedding.test, rtol=0, atol=1e-6)
    assert in_fp32 == (not native or trained_in == "fp32")
    assert not any(getattr(module, "explicit", False) for module in model.modules())


class Headless(torch.nn.Module):
    """A network without a layer that is its head: the largest colour is its class."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)) + self.unused


def test_network_without_head_has_no_neighbours(tmp_path: Path) -> None:
    data = Prepared(tmp_path, {"classes": ["a", "b", "c"]})
    vars(data)["train"] = colours((9, 0, 0), (0, 9, 0), (0, 0, 9), labels=[0, 1, 2])
    vars(data)["test"] = colours((0, 9, 0), (0, 0, 9), labels=[1, 2])
    origin = make_origin("m", data.classes, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    embedding = embed(Headless(), origin, data, 2, "m")
    assert embedding.logits.argmax(dim=1).tolist() == [1, 2]
    found = find_neighbours(embedding, data, seed=0)
    assert found.nearest.shape == found.similarity.shape == (2, 0)
    assert found.votes.tolist() == [[0, 0, 0]] * 3
    assert (found.clusters.tolist(), found.centres.tolist()) == ([0, 0], [0])


def test_neighbours_survive_the_disk(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written = Neighbours(
        rng.integers(0, 9, (3, 5), dtype=np.int32),
        rng.random((3, 5), dtype=np.float32),
        rng.integers(0, 9, (4, 2), dtype=np.uint8),
        np.array([1, 0, 1], np.int32),
        np.array([1, 2], np.int32),
    )
    save_neighbours(tmp_path / "neighbours.npz", written)
    read = load_neighbours(tmp_path / "neighbours.npz")
    for field in vars(written):
        np.testing.assert_array_equal(getattr(read, field), getattr(written, field))
    path = tmp_path / "neighbours.npz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"neighbours\.npz is damaged"):
        load_neighbours(path)
