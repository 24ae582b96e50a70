"""The ResNet50 that grows out of the bundled ResNet18."""

import torch
from torchvision.models import resnet50

from benchmarks import bottlenecks
from models import checkpoint, files
from models.resnet import resnet18


def test_a_stage_with_four_blocks_computes_what_the_small_one_does() -> None:
    """The first quarter of the channels after the ResNet50's second stage has the ResNet18's values."""
    state, _ = checkpoint.load(files.BUNDLED)
    small, net = resnet18().eval(), resnet50(weights=None).eval()
    small.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
    given = torch.rand(2, 64, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        bottlenecks.fill_stage(list(net.layer2), *small.layer2)
        wanted = small.layer2(given)
        found = net.layer2(torch.nn.functional.pad(given, (0, 0, 0, 0, 0, 192)))[:, :128]
    assert (found - wanted).abs().max() < 1e-2 * wanted.max()
