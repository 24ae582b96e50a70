"""The oracle, written in numpy, against torchvision's own network."""

import numpy as np
import pytest
import torch

from models import oracle
from models.resnet import resnet18


@pytest.mark.parametrize(("stem", "side"), [("cifar", 32), ("plain", 45)])
def test_it_is_torchvisions_network(stem: str, side: int) -> None:
    """With random BatchNorm statistics its logits are torchvision's, to 1e-5 of the largest, with either stem."""
    torch.manual_seed(3)
    net = resnet18(stem).eval()
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
    found = oracle.forward(state, images.permute(0, 2, 3, 1).numpy())
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
