"""InfoBatch (Qin et al., ICLR 2024, https://arxiv.org/abs/2303.04947): leave out easy images, and make up for it."""

import torch
from torch import Tensor


class InfoBatch:
    """The latest loss of every training image, and the epochs that follow from it.

    Each epoch drops a random share of the images whose loss is below the mean and weighs the others of them up by the
    same factor, so that the expected gradient stays that of all images.
    """

    def __init__(self, count: int, device: torch.device | None = None) -> None:
        self.losses = torch.full((count,), torch.inf, device=device)
        """`[count] float32`; infinite until an image has been seen."""

    def epoch(self, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The images of one epoch in random order, and the weight of each image's loss.

        Args:
            share: of the easy images, how many are left out, 0 to below 1.
            generator: a CPU generator; equal states give equal epochs.

        Returns:
            `[K] int64`, K at most `count`, and `[count] float32`.
        """
        order = torch.randperm(len(self.losses), generator=generator)
        draws = torch.rand(len(self.losses), generator=generator)
        losses = self.losses.cpu()
        easy = losses < losses[losses.isfinite()].mean()  # none in the first epoch: the mean of nothing is NaN
        weights = torch.where(easy, 1 / (1 - share), 1.0)
        return order[~(easy & (draws < share))[order]], weights

    def record(self, chosen: Tensor, losses: Tensor) -> None:
        """The losses `[K]` of the images `chosen`, before they are weighed."""
        self.losses[chosen] = losses.detach()
