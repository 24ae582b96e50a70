"""Folding and topology against torchvision's own network."""

import numpy as np
import pytest
import torch

from models.checkpoint import State
from models.engines import floating, openvino
from models.engines.network import fold
from models.engines.tensors import on_arrays
from models.files import CheckpointError
from models.resnet import PARAMETERS, resnet18
from models.topology import Architecture, topology
from models.training.augment import normalise

BUNDLED = Architecture(18, "cifar", False, 10)


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    """Return a network whose BatchNorms all change their input."""
    torch.manual_seed(3)
    net = resnet18().eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return net


@pytest.fixture(scope="module")
def state(net: torch.nn.Module) -> State:
    """Return the state dict of `net`."""
    return {name: tensor.numpy() for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize("way", ["eager", "openvino"])
def test_folded_is_the_same_function(way: str, net: torch.nn.Module, state: State) -> None:
    """With random BatchNorm statistics the folded network gives torchvision's logits, to 1e-5 of the largest."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    network = fold(state)
    if way == "eager":
        forward = on_arrays(floating.eager(network, torch.device("cpu"), torch.float32)[0])
    else:
        forward = openvino.floating(network, 1).forward
    with torch.inference_mode():
        expected = net(normalise(torch.from_numpy(pixels))).numpy()
    assert np.abs(expected - forward(pixels)).max() < 1e-5 * np.abs(expected).max()


def test_the_network_has_the_published_size(state: State) -> None:
    """The network has 11,173,962 parameters in 20 convolutions and one linear layer."""
    assert sum(p.numel() for p in resnet18().parameters()) == PARAMETERS
    assert len(list(topology(BUNDLED))) == 21
    assert sum(layer.weight.size + len(layer.bias) for layer in fold(state)) == PARAMETERS - 4800


def test_layers_come_in_running_order() -> None:
    """A block's shortcut comes before its convolutions, and the input side halves with each stage."""
    specs = list(topology(BUNDLED))
    assert [spec.name for spec in specs[:2]] == ["conv1", "layer1.0.conv1"]
    assert next(spec.name for spec in specs if "layer2.0" in spec.name) == "layer2.0.downsample.0"
    assert {spec.name: spec.side for spec in specs}["layer4.1.conv2"] == 4


def test_another_network_is_refused(state: State) -> None:
    """A state dict with a missing, an extra or a misshapen tensor is refused, and the error names the tensors."""
    with pytest.raises(
        CheckpointError, match=r"not a torchvision ResNet18, 3x3 .*: fc.weight is missing, expected \(10,"
    ):
        fold({name: array for name, array in state.items() if name != "fc.weight"})
    with pytest.raises(CheckpointError, match=r"fc.bias is \(10,\), expected \(5,\)$"):
        fold(state | {"fc.weight": np.zeros((5, 512), np.float32)})
    with pytest.raises(CheckpointError, match=r"bn1.extra is \(1,\), expected none; conv1.weight is \(64, 3, 5, 5\)"):
        fold(state | {"conv1.weight": np.zeros((64, 3, 5, 5)), "bn1.extra": np.zeros(1)})
