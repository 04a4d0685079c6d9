"""Mixup and cutmix: combine two images and their labels."""

from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifarpipe.augment.erasing import outside
from cifarpipe.augment.transform import Drawn, EpochOrder


@dataclass(frozen=True)
class MixDraws:
    """The partner of each image of an epoch, and how the two are mixed; `[N, …]`."""

    partner: Tensor
    """`[N]` int64: the partner's offset in the epoch's order; 0 for an image that is not mixed."""
    share: Tensor
    """`[N]` float32: weight of the image's own label."""
    opacity: Tensor
    """`[N]` float32: weight of the image's own pixels outside the box."""
    box: Tensor
    """`[N, 4]` int64: the rectangle taken from the partner: top, left, height, width in pixels."""

    def __getitem__(self, some: slice | Tensor) -> "MixDraws":
        """Return the draws of some images, by their positions in the epoch."""
        return MixDraws(*(getattr(self, field.name)[some] for field in fields(self)))

    def to(self, device: torch.device) -> "MixDraws":
        """Return the draws on a device."""
        return MixDraws(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True)
class Mixing:
    """Mix images with their neighbours by mixup (arXiv:1710.09412) or cutmix (arXiv:1905.04899).

    Neighbours are the first and second image of a batch, the third and fourth, and so on; a last
    image without a neighbour is not mixed. Each image has its own draw.
    """

    mixup: float
    """Probability that an image is mixed by mixup; likewise `cutmix`."""
    mixup_alpha: float
    """The mixing ratio is drawn from Beta(alpha, alpha); likewise `cutmix_alpha`."""
    cutmix: float
    cutmix_alpha: float
    size: int
    """Height and width of the images, in pixels."""
    classes: int

    def draw(self, rng: np.random.Generator, epoch: EpochOrder, batch_size: int) -> MixDraws:
        """Draw for a whole epoch that is divided into batches of `batch_size`."""
        count = len(epoch)
        place = np.arange(count) % batch_size
        partner = np.where(place % 2 == 0, 1, -1)
        # Of each image's batch; the last one may be smaller.
        sizes = np.minimum(batch_size, count - (np.arange(count) - place))
        kind = rng.random(count)
        mixes = (kind < self.mixup) & (place + partner < sizes)
        cuts = (kind >= self.mixup) & (kind < self.mixup + self.cutmix) & (place + partner < sizes)
        opacity = np.where(mixes, rng.beta(self.mixup_alpha, self.mixup_alpha, count), 1.0)
        box = self._draw_boxes(rng, count) * cuts[:, None]
        share = opacity - box[:, 2] * box[:, 3] / self.size**2
        return MixDraws(
            torch.from_numpy(np.where(mixes | cuts, partner, 0)),
            torch.from_numpy(share.astype(np.float32)),
            torch.from_numpy(opacity.astype(np.float32)),
            torch.from_numpy(box),
        )

    def _draw_boxes(self, rng: np.random.Generator, count: int) -> Drawn:
        """Return `[count, 4]`: squares centred on a random pixel, clipped at the border."""
        kept = rng.beta(self.cutmix_alpha, self.cutmix_alpha, count)
        half = (np.sqrt(1 - kept) / 2 * self.size).astype(np.int64)[:, None]
        middle = rng.integers(0, self.size, (count, 2))
        start, end = np.maximum(middle - half, 0), np.minimum(middle + half, self.size)
        return np.concatenate([start, end - start], axis=1)

    def apply(self, images: Tensor, labels: Tensor, drawn: MixDraws) -> tuple[Tensor, Tensor]:
        """Mix whole batches.

        Args:
            images: `[B, 3, S, S]` float.
            labels: `[B]` int64.
            drawn: For these images.

        Returns:
            The mixed images, and class probabilities `[B, classes]` float32.
        """
        whose = torch.arange(len(labels), device=labels.device) + drawn.partner
        stays = outside(drawn.box, self.size) * drawn.opacity[:, None, None, None]
        probabilities = F.one_hot(labels, self.classes).float()
        mixed = torch.lerp(probabilities[whose], probabilities, drawn.share[:, None])
        return torch.lerp(images[whose], images, stays), mixed
