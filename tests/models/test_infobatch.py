"""InfoBatch: the images that an epoch leaves out, and the weights of the others."""

import torch

from models.training.infobatch import InfoBatch


def epoch(known: InfoBatch, share: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an epoch by seed."""
    return known.epoch(share, torch.Generator().manual_seed(seed))


def test_the_first_epoch_has_every_image_once() -> None:
    """The first epoch has every image once, each with weight 1."""
    order, weights = epoch(InfoBatch(1000), 0.5)
    assert order.sort().values.tolist() == list(range(1000))
    assert weights.unique().tolist() == [1.0]


def test_only_easy_images_are_left_out() -> None:
    """Hard images and a new one stay; of the easy images about the share is left out."""
    known = InfoBatch(10_001)
    known.update(torch.arange(10_000), torch.arange(10_000).float())
    order, weights = epoch(known, 0.25)
    kept = torch.zeros(10_001, dtype=torch.bool)
    kept[order] = True
    assert len(order.unique()) == len(order)
    assert kept[5000:].all()
    assert 0.72 < kept[:5000].float().mean() < 0.78
    assert weights[:5000].unique().tolist() == [torch.tensor(4 / 3).item()]
    assert weights[5000:].unique().tolist() == [1.0]


def test_the_weights_make_up_for_what_is_left_out() -> None:
    """Over many epochs the weighted sum of the losses is the sum of all losses."""
    known, losses = InfoBatch(2000), torch.rand(2000, generator=torch.Generator().manual_seed(1))
    known.update(torch.arange(2000), losses)
    sums = [
        float((losses[order] * weights[order]).sum()) for order, weights in (epoch(known, 0.5, s) for s in range(50))
    ]
    assert abs(sum(sums) / 50 / float(losses.sum()) - 1) < 0.01


def test_without_a_share_nothing_is_left_out() -> None:
    """With a share of 0 an epoch has every image, each with weight 1."""
    known = InfoBatch(100)
    known.update(torch.arange(100), torch.arange(100).float())
    order, weights = epoch(known, 0.0)
    assert len(order) == 100
    assert weights.unique().tolist() == [1.0]
