"""Randomisation: do maps depend on what the network has learned (arXiv:1810.03292)?"""

from typing import TYPE_CHECKING

import numpy as np
import scipy.stats
import torch
from numpy.typing import NDArray

from cifarpipe.networks.checkpoint import Origin
from cifarpipe.results.maps import Maps

if TYPE_CHECKING:
    from cifarpipe.models.build import Classifier


def randomised_network(origin: Origin, device: torch.device, seed: int) -> "Classifier":
    """Return the same architecture with randomised weights, in evaluation mode.

    These are not the initial weights of a training with the same seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([seed, 1]).generate_state(1)[0]))
        network = origin.build()
    return network.to(device).eval()


def rank_correlation(maps: Maps, others: Maps) -> NDArray[np.float64]:
    """Return Spearman's correlation of each pair of maps; 0 if one of them is constant."""
    return np.array(
        [
            0.0 if np.ptp(one) == 0 or np.ptp(two) == 0 else scipy.stats.spearmanr(one, two)[0]
            for one, two in zip(map(np.ravel, maps), map(np.ravel, others), strict=True)
        ]
    )
