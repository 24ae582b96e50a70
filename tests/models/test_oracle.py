"""The oracle, written in numpy, against torchvision's own network."""

import numpy as np
import pytest
import torch

from models import oracle
from models.resnet import resnet
from models.topology import Architecture


@pytest.mark.parametrize(
    ("depth", "stem", "max_pool", "side"),
    [(18, "cifar", False, 32), (18, "plain", True, 45), (34, "cifar", True, 16), (50, "plain", True, 33),
     (50, "plain", False, 16), (101, "plain", True, 32)],
)  # fmt: skip
def test_it_is_torchvisions_network(depth: int, stem: str, max_pool: bool, side: int) -> None:
    """With random BatchNorm statistics its logits are torchvision's, to 1e-5 of the largest, with either stem."""
    torch.manual_seed(3)
    architecture = Architecture(depth, stem, max_pool, 7)
    net = resnet(architecture).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    images = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        expected = net(images).numpy()
    state = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    found = oracle.forward(state, architecture, images.permute(0, 2, 3, 1).numpy())
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
