"""Make a ResNet50 for images of 224 pixels, and pictures for it: `python -m benchmarks.bottlenecks --data data`.

It is a demonstration for docs/your-network.md. Training a ResNet50 takes two cores hours, so nothing is trained: the
network grows out of the bundled ResNet18 and computes nearly the same. DIR/mine.pt has torchvision's architecture, with
a 7x7 stem and a max-pool, for six kinds of animals. DIR/photos holds a subfolder of PNG files for each class: test
images of CIFAR-10, mirrored at their borders to 56 pixels and enlarged four times. Without --data they are the 180
bundled ones.

A stage of a ResNet50 has four times as many channels as the ResNet18's. The first quarter holds the ResNet18's values,
and the others what lies between the two convolutions of a block. Two blocks of the ResNet50 stand for one of the
ResNet18. Where a stage has only three, the last one stands for a whole block, with the second convolution as 1x1.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet, resnet50
from torchvision.models.resnet import BasicBlock, Bottleneck

from benchmarks.example import CLASSES, of_classes, write_photos
from models import checkpoint, cifar10, files
from models.checkpoint import State
from models.command import one_sentence
from models.flags import positive
from models.resnet import resnet18

SIDE = 224
ZOOM = 4
"""Pixels of a picture for each pixel of CIFAR-10's, as many as the strides of stem and max-pool together."""
BORDER = (SIDE // ZOOM - 32) // 2
"""Pixels of CIFAR-10's that are mirrored at each side of a picture."""
SIGMAS = 6
"""A sum that has to pass a ReLU is raised until so many standard deviations below its mean are positive."""
RIDGE = 1e-4
"""Weight of the ridge in the fit of the stem, as a share of the mean square of the patches."""
FITTED = 100
"""Bundled images that the stem is fitted to."""
RENORMALISED = 60
"""Bundled images whose statistics the norms get. Their labels are not used."""


def enlarged(pixels: np.ndarray) -> Image.Image:
    """Return a `[3, 32, 32] uint8` image with SIDE pixels a side: mirrored at its borders, then enlarged ZOOM times."""
    wide = np.pad(pixels, ((0, 0), (BORDER, BORDER), (BORDER, BORDER)), "reflect")
    return Image.fromarray(wide.transpose(1, 2, 0)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def channels_first(pixels: np.ndarray) -> np.ndarray:
    """Return the enlarged image as `[3, SIDE, SIDE] uint8`."""
    return np.asarray(enlarged(pixels)).transpose(2, 0, 1)


@torch.no_grad()
def grown(state: State) -> ResNet:
    """Return a ResNet50 for CLASSES that answers enlarged images nearly as the bundled ResNet18 answers CIFAR-10's."""
    small = resnet18()
    small.load_state_dict({name: torch.from_numpy(np.array(values)) for name, values in state.items()})
    net = resnet50(weights=None, num_classes=len(CLASSES))
    net.conv1.weight.copy_(fitted(small.conv1.weight))
    net.bn1.load_state_dict(small.bn1.state_dict())
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        fill_stage(list(getattr(net, stage)), *getattr(small, stage))
    rows = [cifar10.CLASSES.index(name) for name in CLASSES]
    nn.init.zeros_(net.fc.weight)
    net.fc.weight[:, : small.fc.in_features] = small.fc.weight[rows]
    net.fc.bias.copy_(small.fc.bias[rows])
    renormalise(net, normalised(np.stack([channels_first(image) for image in cifar10.sample()[0][:RENORMALISED]])))
    return net


def renormalise(net: ResNet, images: Tensor) -> None:
    """Give the norms that come from the ResNet18 the statistics of these images, and put the network into eval mode.

    A max-pool and mirrored borders shift what they see. Norms that change nothing keep their statistics.
    """
    net.eval()
    for name, norm in net.named_modules():
        if name in {"bn1", *(f"layer{stage}.0.downsample.1" for stage in (2, 3, 4))} or name.endswith(".bn2"):
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over all batches
            norm.train()
    net(images)
    net.eval()


def fitted(kernel: Tensor) -> Tensor:
    """Return `[out, 3, 7, 7]` weights that do on enlarged images what `[out, 3, 3, 3]` ones do on CIFAR-10's.

    They are fitted by least squares to FITTED images, at the two positions that are nearest to a pixel's middle.
    """
    images = cifar10.sample()[0][:FITTED]
    large = np.stack([channels_first(image) for image in images])
    patches = F.unfold(normalised(large), 7, padding=3, stride=2).unflatten(2, (SIDE // 2, SIDE // 2))
    inner = patches[:, :, 2 * BORDER + 2 : -2 * BORDER - 2, 2 * BORDER + 2 : -2 * BORDER - 2]
    given = torch.cat([inner[:, :, shift::2, shift::2] for shift in (0, 1)]).transpose(0, 1).flatten(1)
    wanted = F.conv2d(normalised(images), kernel).repeat(2, 1, 1, 1).transpose(0, 1).flatten(1)
    square = given @ given.T
    square += RIDGE * square.trace() / len(square) * torch.eye(len(square))
    solution: Tensor = torch.linalg.solve(square, given @ wanted.T)
    return solution.T.reshape(-1, 3, 7, 7)


def normalised(images: np.ndarray) -> Tensor:
    """Return `[N, 3, H, W] uint8` images as the bundled network takes them."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (cifar10.MEAN, cifar10.STD))
    return (torch.from_numpy(images) / 255 - mean) / std


def fill_stage(free: list[Bottleneck], first: BasicBlock, second: BasicBlock) -> None:
    """Give the blocks of a ResNet50's stage the weights of the two blocks of a ResNet18's."""
    for block in free:
        nn.init.zeros_(block.conv3.weight)
    lift = fill_shortcut(free[0], first)
    split(free[0], free[1], first, 1, lift)
    if len(free) == 3:
        merge(free[2], second)
    else:
        split(free[2], free[3], second, 2, torch.zeros_like(lift))


def fill_shortcut(block: Bottleneck, basic: BasicBlock) -> Tensor:
    """Give a block the shortcut of a ResNet18's block; return by how much its sums are raised to pass the ReLU."""
    width = basic.conv1.out_channels
    convolution, norm = block.downsample
    nn.init.zeros_(convolution.weight)
    if basic.downsample is None:  # the sums are those of a ReLU
        convolution.weight[range(width), range(width)] = 1
        return torch.zeros(width)
    convolution.weight[:width, : basic.conv1.in_channels] = basic.downsample[0].weight
    copy_norm(basic.downsample[1], norm)
    lift = raise_for(basic.downsample[1])
    norm.bias[:width] += lift
    return lift


def split(one: Bottleneck, two: Bottleneck, basic: BasicBlock, quarter: int, lift: Tensor) -> None:
    """Make two blocks compute what `basic` does; the values between its convolutions lie in a quarter of the channels.

    `lift` is by how much the sums on the shortcut are raised.
    """
    width = basic.conv1.out_channels
    fill(one, 0, basic.conv1, basic.bn1, quarter * width)
    fill(two, quarter * width, basic.conv2, basic.bn2, 0)
    own = raise_for(basic.bn2)
    two.bn2.bias += own
    two.bn3.bias[:width] -= own + lift


def merge(block: Bottleneck, basic: BasicBlock) -> None:
    """Make one block compute nearly what `basic` does. Its second convolution is 1x1: the sum over the window."""
    width = basic.conv1.out_channels
    fill(block, 0, basic.conv1, basic.bn1, 0)
    block.conv3.weight[:width] = basic.conv2.weight.sum((2, 3), keepdim=True)
    copy_norm(basic.bn2, block.bn3)


def fill(block: Bottleneck, source: int, convolution: nn.Conv2d, norm: nn.BatchNorm2d, target: int) -> None:
    """Make a block apply convolution, norm and ReLU to the channels from `source` on, and add them from `target` on."""
    inputs, outputs = convolution.in_channels, convolution.out_channels
    for layer in (block.conv1, block.conv2):
        nn.init.zeros_(layer.weight)
    block.conv1.weight[range(inputs), range(source, source + inputs)] = 1
    block.conv2.weight[:, :inputs] = convolution.weight
    block.bn2.load_state_dict(norm.state_dict())
    block.conv3.weight[range(target, target + outputs), range(outputs)] = 1


def copy_norm(norm: nn.BatchNorm2d, to: nn.BatchNorm2d) -> None:
    """Give the first channels of `to` the values of `norm`."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(to, name)[: norm.num_features] = getattr(norm, name)


def raise_for(norm: nn.BatchNorm2d) -> Tensor:
    """Return by how much the sums after a norm must be raised, so that a ReLU passes nearly all of them."""
    return (SIGMAS * norm.weight.abs() - norm.bias).clamp(min=0)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bottlenecks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/r50"), help="folder for mine.pt and photos/ (%(default)s)")
    add("--data", type=Path, help="holds cifar-10-batches-bin/; without it the pictures are the bundled images")
    add("--photos", type=positive, default=400, help="pictures of each class at most (%(default)s)")
    args = parser.parse_args(argv)
    with one_sentence():
        pictures = cifar10.read(args.data, "test") if args.data else cifar10.sample()
        count = write_photos(args.out / "photos", *of_classes(*pictures), args.photos, enlarged)
        torch.save({"state_dict": grown(checkpoint.load(files.BUNDLED)[0]).state_dict()}, args.out / "mine.pt")
    print(f"{args.out}/mine.pt: a ResNet50 for {len(CLASSES)} classes and images of {SIDE} pixels")
    print(f"{args.out}/photos: {count:,} pictures of {', '.join(CLASSES)}")


if __name__ == "__main__":
    main()
