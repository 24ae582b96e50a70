"""Make a network of one's own and pictures for it from what is at hand: `python -m benchmarks.example --out DIR`.

It is a demonstration for docs/your-network.md, not a good way to train. DIR/mine.pt is a torchvision ResNet34 for six
kinds of animals and images of 64 pixels, with a 7x7 stem and no max-pool. It grows out of the bundled ResNet18: the
stem's 3x3 windows become 7x7 windows over twice as many pixels, the additional blocks begin as no change at all, and
the last layer keeps the rows of six classes. DIR/photos holds a subfolder of PNG files for each class.

With --data, some steps of training on CIFAR-10's training images let all layers take part, and the pictures come from
the 10,000 test images. Without it, nothing is trained, and the pictures are the 180 bundled images of these classes.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import ResNet, resnet34
from tqdm import tqdm

from models import checkpoint, cifar10, files
from models.checkpoint import State
from models.command import one_sentence
from models.flags import positive, whole

CLASSES = ("bird", "cat", "deer", "dog", "frog", "horse")
SIDE = 64
BATCH = 64
LEARNING_RATE = 0.01


def grown(state: State) -> ResNet:
    """Return a ResNet34 for CLASSES that answers images of SIDE pixels as the bundled network answers them at half."""
    net = resnet34(weights=None, num_classes=len(CLASSES))
    net.maxpool = nn.Identity()
    rows = [cifar10.CLASSES.index(name) for name in CLASSES]
    given = {name: torch.from_numpy(np.array(values)) for name, values in state.items()}
    given |= {f"fc.{part}": given[f"fc.{part}"][rows] for part in ("weight", "bias")}
    given["conv1.weight"] = widened(given["conv1.weight"])
    missing, _ = net.load_state_dict(given, strict=False)
    for name in missing:
        if name.endswith("bn2.weight"):
            nn.init.zeros_(net.get_parameter(name))  # the block adds nothing, and its ReLU changes no sum above zero
    return net


def widened(kernel: Tensor) -> Tensor:
    """Return `[out, in, 7, 7]` weights that do with stride 2 what the 3x3 `kernel` does on the means of 2x2 pixels."""
    doubled = kernel.repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
    return nn.functional.pad(doubled, (1, 0, 1, 0))


def enlarged(pixels: np.ndarray) -> Image.Image:
    """Return a `[3, 32, 32] uint8` image with SIDE pixels a side."""
    image = Image.fromarray(pixels.transpose(1, 2, 0))
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def train(net: ResNet, images: np.ndarray, labels: np.ndarray, steps: int, seed: int) -> None:
    """Train the network on random batches of `[N, 3, 32, 32] uint8` images, half of them mirrored."""
    random = np.random.default_rng(seed)
    mean, std = (torch.tensor(values)[:, None, None] for values in (cifar10.MEAN, cifar10.STD))
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    net.train()
    for _ in (bar := tqdm(range(steps), desc="training", unit="step")):
        chosen = random.integers(len(labels), size=BATCH)
        batch = np.stack([np.asarray(enlarged(images[index])) for index in chosen])
        mirrored = random.random(BATCH) < 0.5
        batch[mirrored] = batch[mirrored, :, ::-1]
        x = (torch.from_numpy(batch).permute(0, 3, 1, 2) / 255 - mean) / std
        logits = net(x.contiguous(memory_format=torch.channels_last))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels[chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")


def of_classes(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of CLASSES, and their labels as indices into CLASSES."""
    names = np.array(cifar10.CLASSES)[labels]
    kept = np.isin(names, CLASSES)
    return images[kept], np.array([CLASSES.index(name) for name in names[kept]])


def write_photos(
    folder: Path,
    images: np.ndarray,
    labels: np.ndarray,
    most: int,
    enlarge: Callable[[np.ndarray], Image.Image] = enlarged,
) -> int:
    """Write up to `most` pictures of each class as PNG files, in one subfolder for each class; return their number."""
    written = 0
    for index, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, pixels in enumerate(images[labels == index][:most]):
            enlarge(pixels).save(folder / name / f"{number:04}.png")
            written += 1
    return written


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.example", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/example"), help="folder for mine.pt and photos/ (%(default)s)")
    add("--data", type=Path, help="holds cifar-10-batches-bin/; without it nothing is trained")
    add("--steps", type=whole, default=60, help=f"batches of {BATCH} images to train on (%(default)s)")
    add("--photos", type=positive, default=400, help="pictures of each class at most (%(default)s)")
    add("--seed", type=whole, default=0, help="chooses the images of the training (%(default)s)")
    args = parser.parse_args(argv)
    with one_sentence():
        torch.manual_seed(args.seed)
        net = grown(checkpoint.load(files.BUNDLED)[0]).to(memory_format=torch.channels_last)
        pictures = cifar10.read(args.data, "test") if args.data else cifar10.sample()
        if args.data and args.steps:
            train(net, *of_classes(*cifar10.read(args.data, "train")), args.steps, args.seed)
        count = write_photos(args.out / "photos", *of_classes(*pictures), args.photos)
        torch.save({"epoch": 1, "state_dict": net.state_dict()}, args.out / "mine.pt")
    print(f"{args.out}/mine.pt: a ResNet34 for {len(CLASSES)} classes and images of {SIDE} pixels")
    print(f"{args.out}/photos: {count:,} pictures of {', '.join(CLASSES)}")


if __name__ == "__main__":
    main()
