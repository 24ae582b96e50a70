"""torchvision's ResNets of any depth and number of classes, with a CIFAR stem or their own."""

from torch import nn
from torchvision import models as torchvision_models
from torchvision.models import ResNet

from models.topology import STEMS, Architecture

PARAMETERS = 11_173_962
"""Weights and biases of the bundled network: a ResNet18 with the CIFAR stem for ten classes."""
MACS_PER_IMAGE = 555_422_720
"""Multiply-accumulates of its convolutions and linear layer for one 32x32 image (0.56 GMACs, 1.11 GFLOP)."""


def resnet(architecture: Architecture) -> ResNet:
    """Return an untrained network, which takes `[N, 3, H, W] float32, normalised` and gives float32 logits."""
    net: ResNet = getattr(torchvision_models, architecture.name)(weights=None, num_classes=architecture.classes)
    stem = STEMS[architecture.stem]
    if architecture.stem != "plain":
        net.conv1 = nn.Conv2d(3, 64, stem.kernel, stem.stride, padding=stem.kernel // 2, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    if not architecture.max_pool:
        net.maxpool = nn.Identity()
    return net


def resnet18(stem: str = "cifar", classes: int = 10) -> ResNet:
    """Return an untrained ResNet18 with a stem of `models.topology.STEMS` and the max-pool that is usual for it."""
    return resnet(Architecture(18, stem, STEMS[stem].has_max_pool, classes))
