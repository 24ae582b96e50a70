"""torchvision's ResNet18 with the CIFAR stem."""

from torch import nn
from torchvision.models import ResNet
from torchvision.models import resnet18 as torchvision_resnet18

PARAMETERS = 11_173_962
MACS_PER_IMAGE = 555_422_720
"""Multiply-accumulates of the convolutions and the linear layer for one 32x32 image (0.56 GMACs, 1.11 GFLOP)."""


def resnet18() -> ResNet:
    """A fresh ResNet18 for 32x32 images and ten classes, 11,173,962 parameters.

    The first convolution is 3x3 with stride 1 and there is no max-pool, as is usual for CIFAR-10
    (https://github.com/kuangliu/pytorch-cifar). It takes `[N, 3, 32, 32] float32, normalised` and gives
    `[N, 10] float32` logits.
    """
    net = torchvision_resnet18(weights=None, num_classes=10)
    net.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    return net
