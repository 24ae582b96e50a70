"""Every depth of torchvision's ResNet, in every precision of the CPU, against torchvision's own network."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models import cifar10, preprocess
from models.calibrate import calibrate
from models.card import Card
from models.engines import dynamic, floating, openvino, quantized
from models.engines.network import FoldedLayer, fold
from models.engines.tensors import on_arrays
from models.logits import sqnr
from models.resnet import resnet
from models.topology import Architecture, Network

SIDE = 40
CARD = Card(input_size=SIDE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), classes=tuple("abcdefg"))
ARCHITECTURES = {
    "resnet34": Architecture(34, "plain", True, 7),
    "resnet50": Architecture(50, "plain", False, 7),
    "resnet18": Architecture(18, "cifar", True, 7),
}
"""Either kind of block and either stem, with and without the max-pool that is usual for it."""


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Return 24 images of the sample in the network's size."""
    return preprocess.resized(cifar10.sample()[0][:24], SIDE)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def net(request: pytest.FixtureRequest, images: np.ndarray) -> nn.Module:
    """Return an untrained network with BatchNorm statistics of the images, so that its logits vary.

    Blocks add a little to their input, as in trained networks: else noise grows with every block.
    """
    torch.manual_seed(4)
    net = resnet(ARCHITECTURES[request.param])
    net.architecture = ARCHITECTURES[request.param]
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        for name, parameter in net.named_parameters():
            if name.endswith(("bn2.weight", "bn3.weight")):
                parameter.fill_(0.3)
        net(normalised(images))
    return net.eval()


def normalised(images: np.ndarray) -> torch.Tensor:
    """Return the input of torchvision's network."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CARD.mean, CARD.std))
    return (torch.from_numpy(images) / 255 - mean) / std


@pytest.fixture(scope="module")
def network(net: nn.Module) -> Network[FoldedLayer]:
    """Return the folded network, told by its card whether it has a max-pool."""
    card = Card(**vars(CARD) | {"max_pool": net.architecture.max_pool})
    network = fold({name: tensor.numpy() for name, tensor in net.state_dict().items()}, card)
    assert network.architecture == net.architecture
    return network


@pytest.fixture(scope="module")
def expected(net: nn.Module, images: np.ndarray) -> np.ndarray:
    """Return torchvision's logits."""
    with torch.inference_mode():
        return net(normalised(images)).numpy()


def int8(network: Network[FoldedLayer], images: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return static INT8, calibrated on the images."""
    integers = quantized.quantize(network, calibrate(network, images), quantized.FULL_LIMIT)
    return openvino.int8(quantized.narrowed(integers), 1).forward


WAYS = {
    "openvino": (lambda network, _: openvino.floating(network, 1).forward, 80),
    "eager": (lambda network, _: on_arrays(floating.eager(network, torch.device("cpu"), torch.float32)[0]), 80),
    "int8-dynamic": (lambda network, _: dynamic.with_integer_head(openvino.features(network, 1), network).forward, 35),
    "int8": (int8, 12),
}
"""The function of a network, and the least SQNR of its logits in dB, with weights of 7 bits in INT8."""


@pytest.mark.parametrize("way", WAYS)
def test_it_answers_as_torchvision(
    way: str, network: Network[FoldedLayer], images: np.ndarray, expected: np.ndarray
) -> None:
    """Blocks of two and of three convolutions, with and without a max-pool, give torchvision's logits."""
    build, least = WAYS[way]
    assert (sqnr(expected, build(network, images)(images)) or np.inf) > least


def test_an_artifact_keeps_the_architecture(network: Network[FoldedLayer], tmp_path: Path) -> None:
    """The INT8 artifact of any depth gives back the network and its architecture."""
    ranges = {layer.spec.name: (0.0, 1.0) for layer in network}
    integers = quantized.quantize(network, ranges, quantized.FULL_LIMIT)
    path = tmp_path / "own.int8.safetensors"
    path.write_bytes(quantized.serialize(integers, "a" * 64, "b" * 64, CARD.labels))
    found, _ = quantized.deserialize(path)
    assert (found.architecture, found.input) == (network.architecture, network.input)
    assert all(np.array_equal(layer.weight, other.weight) for layer, other in zip(found, integers, strict=True))
