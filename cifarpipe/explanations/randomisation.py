"""Randomisation: do maps depend on what the network has learned (arXiv:1810.03292)?"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.stats
import torch
from numpy.typing import NDArray

from cifarpipe.networks.checkpoint import Origin
from cifarpipe.results.maps import Maps

if TYPE_CHECKING:
    from cifarpipe.models.build import Classifier

# Keys of an architecture that change the initial weights alone. Without them, layers start as
# PyTorch's do.
INITIALISATION = ("init", "zero_init_residual")


def randomised_network(
    origin: Origin, device: torch.device, seed: int, number: int = 0
) -> "Classifier":
    """Return the same architecture with random weights, in evaluation mode.

    Layers are initialised as PyTorch's are: a residual branch that starts at zero would leave most
    of the network without effect, and attention that starts as trained networks have it would not
    be random.

    Args:
        origin: Of the trained network.
        device: Where to put it.
        seed: Together with `number`, of all weights.
        number: Tells the networks of one seed apart.
    """
    plain = {key: value for key, value in origin.architecture.items() if key not in INITIALISATION}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([seed, 1, number]).generate_state(1)[0]))
        network = replace(origin, architecture=plain).build()
    return network.to(device).eval()


def rank_correlation(maps: Maps, others: Maps) -> NDArray[np.float64]:
    """Return Spearman's correlation of each pair of maps; NaN if one of them is constant."""
    return np.array(
        [
            np.nan if np.ptp(one) == 0 or np.ptp(two) == 0 else scipy.stats.spearmanr(one, two)[0]
            for one, two in zip(map(np.ravel, maps), map(np.ravel, others), strict=True)
        ]
    )
