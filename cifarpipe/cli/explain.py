"""A network's answer to one picture: which classes it sees in it, and where."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cifarpipe.explanations.attention import ATTENTION_METHODS
from cifarpipe.explanations.explainer import Explainer
from cifarpipe.explanations.gradcam import METHODS, Maps


@dataclass(frozen=True)
class Answer:
    """All classes, the most probable first, and where the evidence for the first few lies."""

    classes: list[str]
    probabilities: NDArray[np.float64]
    """`[classes]`, in that order."""
    maps: Maps
    """`[mapped, h, w]` raw, of the first classes: comparable with each other."""


def methods_for(model: nn.Module) -> tuple[str, ...]:
    """Return the methods that can explain a network, as params.yaml calls them."""
    return tuple(METHODS) + (ATTENTION_METHODS if hasattr(model, "attentions") else ())


def answer(explainer: Explainer, pixels: NDArray[np.uint8], mapped: int) -> Answer:
    """Classify a picture and explain its most probable classes.

    Args:
        explainer: Holds the network and the method.
        pixels: `[S, S, 3]`, at the network's size.
        mapped: Classes to explain; of fewer classes all are.
    """
    with torch.no_grad():
        logits = explainer.model(explainer.normalized(pixels[None]))[0]
    probabilities = logits.double().softmax(dim=0).cpu().numpy()
    order = np.argsort(-probabilities, kind="stable")
    first = order[:mapped]
    maps = explainer.maps(np.repeat(pixels[None], len(first), axis=0), first)
    names = [explainer.origin.classes[label] for label in order]
    return Answer(names, probabilities[order], maps)
