"""InfoBatch (Qin et al., ICLR 2024, https://arxiv.org/abs/2303.04947): epochs that leave out easy images.

The easy images that remain count more, which keeps the expected gradient.
"""

import torch
from torch import Tensor


class InfoBatch:
    """The latest loss of every training image, and the choice of images for an epoch.

    An image is easy if its loss is below the mean. Each epoch drops a random share of the easy images and multiplies
    the loss of the other easy ones by 1 / (1 - share), so that the expected gradient is the one of all images.
    """

    def __init__(self, count: int, device: torch.device | None = None) -> None:
        self.losses = torch.full((count,), torch.inf, device=device)
        """`[count] float32`; infinite for an image that was not trained on yet."""

    def epoch(self, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the images of one epoch in random order, and the weight of each image's loss.

        Args:
            share: share of the easy images to leave out, 0 to below 1.
            generator: a CPU generator; equal states give equal epochs.

        Returns:
            `[K] int64`, K at most `count`, and `[count] float32`.
        """
        order = torch.randperm(len(self.losses), generator=generator)
        draws = torch.rand(len(self.losses), generator=generator)
        losses = self.losses.cpu()
        easy = losses < losses[losses.isfinite()].mean()  # all False in the first epoch: the mean of nothing is NaN
        weights = torch.where(easy, 1 / (1 - share), 1.0)
        return order[~(easy & (draws < share))[order]], weights

    def update(self, chosen: Tensor, losses: Tensor) -> None:
        """Store the losses `[K]` of the images `chosen`, without their weights."""
        self.losses[chosen] = losses.detach()
