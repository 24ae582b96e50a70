"""torchvision's ResNet18 for ten classes, with a CIFAR stem or its own."""

from torch import nn
from torchvision.models import ResNet
from torchvision.models import resnet18 as torchvision_resnet18

PARAMETERS = 11_173_962
"""Weights and biases of the network with the CIFAR stem."""
MACS_PER_IMAGE = 555_422_720
"""Multiply-accumulates of the convolutions and the linear layer for one 32x32 image (0.56 GMACs, 1.11 GFLOP)."""


def resnet18(stem: str = "cifar") -> ResNet:
    """Return an untrained ResNet18 for ten classes with a stem of `models.topology.STEMS`.

    The stem `cifar` is for 32x32 images: a 3x3 convolution with stride 1 and no max-pool, as is usual for CIFAR-10
    (https://github.com/kuangliu/pytorch-cifar). The stem `plain` is torchvision's own. The network takes
    `[N, 3, H, W] float32, normalised` and gives `[N, 10] float32` logits.
    """
    net = torchvision_resnet18(weights=None, num_classes=10)
    if stem == "plain":
        return net
    net.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    return net
