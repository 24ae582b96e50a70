"""Train the ResNet18 on CIFAR-10: `python -m models.train --data DIR --out DIR`.

SGD with Nesterov momentum, a one-cycle learning rate (linear warm-up, cosine to zero), label smoothing, random crops,
flips that alternate from epoch to epoch (https://arxiv.org/abs/2404.00498), cutout. The defaults are meant for a GPU:
they take as long as the cutout paper, which reports 96.0 % for this network. Early epochs may run on smaller images
("progressive resizing", https://dawn.cs.stanford.edu/benchmark/) and leave easy images out (models.infobatch), which a
CPU needs. Convolutions run in bfloat16 where the device has instructions for it. A run that was stopped goes on as if
it had not been.
"""

import argparse
import io
import json
import math
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from common import machine
from models import checkpoint, cifar10, files, flags, preprocess
from models.card import Card
from models.checkpoint import State
from models.engines import graphs
from models.files import CheckpointError
from models.infobatch import InfoBatch
from models.resnet import resnet18
from models.topology import STEMS, detect

Start = tuple[State, Card]
"""The weights that a run goes on from."""

LEAST_SIDE = 8
"""Of the images in pixels: the network halves it three times."""
BAR = "{percentage:5.1f} % of {total} epochs [{elapsed}<{remaining}{postfix}]"


@dataclass(frozen=True)
class Recipe:
    """What makes a training run; a checkpoint resumes only under the recipe that it was started with."""

    epochs: int = 200
    batch_size: int = 128
    learning_rate: float = 0.1
    warmup: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    crop_padding: int = 4
    cutout: int = 12
    """Side in pixels of a square that is grey in every image (https://arxiv.org/abs/1708.04552); 0 for none."""
    resolutions: str = "32@1"
    pruned: float = 0.0
    """Share of the easy images that an epoch leaves out."""
    pruned_until: float = 0.9
    """The progress from which on every epoch has all images."""
    held_out: int = 0
    seed: int = 0
    start: str = ""
    """A checkpoint whose weights this run goes on from, instead of random ones."""

    def __post_init__(self) -> None:
        """Raises ValueError for what no run can follow, before hours were spent on it."""
        limits = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "learning_rate": self.learning_rate > 0,
            "warmup": 0 <= self.warmup < 1,
            "crop_padding": 0 <= self.crop_padding < preprocess.SIDE,
            "cutout": 0 <= self.cutout <= preprocess.SIDE,
            "pruned": 0 <= self.pruned < 1,
            "held_out": self.held_out >= 0,
            "seed": self.seed >= 0,
        }
        for name, holds in limits.items():
            if not holds:
                raise ValueError(f"--{name.replace('_', '-')}: {getattr(self, name)} is out of range")
        until = [progress for _, progress in self.schedule()]
        if until != sorted(set(until)) or until[0] <= 0 or until[-1] != 1:
            raise ValueError(f"--resolutions: expected progress that rises to 1, got {self.resolutions!r}")

    def schedule(self) -> list[tuple[int, float]]:
        """Sides of the images in pixels, each with the progress until which it holds."""
        try:
            parts = (part.split("@") for part in self.resolutions.split(","))
            found = [(int(side), float(until)) for side, until in parts]
        except ValueError:
            found = []
        if not found or not all(LEAST_SIDE <= side <= preprocess.SIDE for side, _ in found):
            raise ValueError(f"--resolutions: expected SIDE@UNTIL,... such as 24@0.5,32@1, got {self.resolutions!r}")
        return found

    def learning_rate_at(self, progress: float) -> float:
        """The learning rate at `progress` (0 to 1): linear warm-up, then cosine to zero."""
        if progress < self.warmup:
            return self.learning_rate * progress / self.warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup)))

    def resolution_at(self, progress: float) -> int:
        """The image side in pixels at `progress`."""
        return next((side for side, until in self.schedule() if progress < until), preprocess.SIDE)


def augment(pixels: Tensor, flip: Tensor, padding: int, cutout: int, side: int, generator: torch.Generator) -> Tensor:
    """Random crop, flip where it says so, a square cut out, then resize and normalise.

    Args:
        pixels: `[N, 3, 32, 32] uint8`.
        flip: `[N] bool`: which images are mirrored, left to right.
        padding: reflected border that the 32x32 crop may reach into, in pixels.
        cutout: side of the square, anywhere within the image, that becomes the training set's mean; 0 for none.
        side: height and width of what comes back, in pixels.
        generator: a CPU generator; equal states give equal batches.

    Returns:
        `[N, 3, side, side] float32, normalised`.
    """
    count = len(pixels)
    padded = F.pad(pixels.float(), (padding,) * 4, mode="reflect")
    offsets = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    window = torch.arange(32)
    rows = offsets[0] + window
    columns = torch.where(flip[:, None], offsets[1] + window.flip(0), offsets[1] + window)
    index = torch.arange(count, device=pixels.device)[:, None, None, None]
    channel = torch.arange(3, device=pixels.device)[None, :, None, None]
    rows, columns = rows.to(pixels.device), columns.to(pixels.device)
    cropped = padded[index, channel, rows[:, None, :, None], columns[:, None, None, :]]
    if cutout:
        corners = torch.randint(0, 32 - cutout + 1, (2, count, 1), generator=generator)
        down, across = ((window >= corner) & (window < corner + cutout) for corner in corners)
        square = (down[:, None, :, None] & across[:, None, None, :]).to(pixels.device)
        cropped = torch.where(square, torch.tensor(cifar10.MEAN, device=pixels.device).view(3, 1, 1) * 255, cropped)
    if side != 32:
        cropped = F.interpolate(cropped, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    return normalise(cropped)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return not machine.flags().isdisjoint({"avx512_bf16", "amx_bf16"})


def normalise(pixels: Tensor) -> Tensor:
    """`[N, 3, H, W]` pixels of 0 to 255 to float32 with the training set's mean 0 and standard deviation 1."""
    mean = torch.tensor(cifar10.MEAN, device=pixels.device).view(3, 1, 1) * 255
    std = torch.tensor(cifar10.STD, device=pixels.device).view(3, 1, 1) * 255
    return (pixels.float() - mean) / std


@torch.no_grad()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy (0 to 1) of `net` on `[N, 3, 32, 32] uint8` images, without test-time augmentation."""
    net.eval()
    batches = zip(images.split(500), labels.split(500), strict=True)
    correct = sum(int((net(normalise(x)).argmax(1) == y).sum()) for x, y in batches)
    net.train()
    return correct / len(images)


class Run:
    """One training run: network, optimiser and the step it has reached."""

    def __init__(self, recipe: Recipe, device: torch.device, count: int, start: Start | None = None) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.device = device
        self.count = count
        self.step = 0
        self.epoch = 0
        self.seconds = 0.0
        self.machines = [describe_machine(device)]
        self.started_from = asdict(start[1]) if start else None
        self.net = resnet18()
        if start:
            weights = {name: torch.from_numpy(array) for name, array in start[0].items()}
            self.net.load_state_dict(weights, strict=False)  # `started` compared them; counts of batches may be missing
        self.net.to(device, memory_format=torch.channels_last)
        decayed = [p for p in self.net.parameters() if p.ndim > 1]
        plain = [p for p in self.net.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)
        self.infobatch = InfoBatch(count, device)
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        """The images of this epoch; they depend on nothing but seed, epoch and the losses so far."""
        self.position = 0
        share = self.recipe.pruned if self.progress < self.recipe.pruned_until else 0.0
        seeded = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.epoch)
        self.order, self.weights = (part.to(self.device) for part in self.infobatch.epoch(share, seeded))

    @property
    def steps(self) -> int:
        """Of this epoch; images that fill no batch are left for another."""
        return len(self.order) // self.recipe.batch_size

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end."""
        within = self.position / self.steps if self.position else 0.0
        return (self.epoch + within) / self.recipe.epochs

    def train_step(self, images: Tensor, labels: Tensor) -> float:
        """One optimiser step on the next batch; gives the mean loss."""
        recipe, size = self.recipe, self.recipe.batch_size
        chosen = self.order[self.position * size :][:size]
        generator = torch.Generator().manual_seed((recipe.seed + 1) * 1_000_000_007 + self.step)
        flip = (chosen.cpu() * 2_654_435_761 // 2**16 + self.epoch) % 2 == 0  # half of them, the others next time
        inputs = augment(
            images[chosen],
            flip,
            recipe.crop_padding,
            recipe.cutout,
            recipe.resolution_at(self.progress),
            generator,
        ).contiguous(memory_format=torch.channels_last)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(self.progress)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=has_bfloat16(self.device)):
            losses = F.cross_entropy(
                self.net(inputs), labels[chosen], label_smoothing=recipe.label_smoothing, reduction="none"
            )
        self.infobatch.record(chosen, losses)
        self.optimizer.zero_grad(set_to_none=True)
        (losses * self.weights[chosen]).mean().backward()
        self.optimizer.step()
        self.step += 1
        self.position += 1
        if self.position == self.steps:
            self.epoch += 1
            self._begin_epoch()
        return float(losses.detach().mean())

    def save(self, path: Path) -> None:
        state = {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "epoch": self.epoch,
            "position": self.position,
            "order": self.order,
            "weights": self.weights,
            "losses": self.infobatch.losses,
            "seconds": self.seconds,
            "machines": self.machines,
            "started_from": self.started_from,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        content = io.BytesIO()
        torch.save(state, content)
        files.write(path, content.getvalue())

    def resume(self, path: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            CheckpointError: it is damaged, or of another recipe.
        """
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            recipe, machines = state["recipe"], state["machines"]
        except checkpoint.NOT_TORCHS as error:
            raise CheckpointError(
                f"{path} is damaged or of another version ({type(error).__name__}); delete it to begin anew"
            ) from error
        if recipe != asdict(self.recipe):
            raise CheckpointError(f"{path} was started with {recipe}; give the same flags, or another --out")
        for name in ("step", "epoch", "position", "order", "weights", "seconds", "started_from"):
            setattr(self, name, state[name])
        self.infobatch.losses = state["losses"]
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        is_over = self.epoch == self.recipe.epochs
        self.machines = machines if is_over or machines[-1] == self.machines[0] else machines + self.machines


def train(recipe: Recipe, data: Path, out: Path, device: torch.device, save_every: float) -> Run:
    """Run `recipe` to its end, resuming from `out/last.pt`; `save_every` is in seconds.

    Raises:
        DatasetError, CheckpointError: what the run needs is missing or damaged.
        ValueError: the recipe does not fit the data set.
    """
    pixels, classes = cifar10.read(data, "train")
    kept = len(pixels) - recipe.held_out
    if kept * (1 - recipe.pruned) < recipe.batch_size:
        raise ValueError(f"--batch-size: {recipe.batch_size} is more than an epoch may have of {kept:,} images")
    order = np.random.default_rng(12345).permutation(len(pixels))
    images, labels = (torch.from_numpy(a[order]).to(device) for a in (pixels, classes))
    last = out / "last.pt"
    is_new = not last.exists()
    run = Run(recipe, device, kept, started(Path(recipe.start)) if recipe.start and is_new else None)
    if not is_new:
        run.resume(last)
    out.mkdir(parents=True, exist_ok=True)
    began, saved = time.perf_counter() - run.seconds, time.perf_counter()
    smooth = None
    with tqdm(total=recipe.epochs, unit="epoch", mininterval=2, bar_format=BAR) as bar:
        while run.epoch < recipe.epochs:
            loss = run.train_step(images[:kept], labels[:kept])
            smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss
            run.seconds = time.perf_counter() - began
            bar.update(run.progress * recipe.epochs - bar.n)
            bar.set_postfix(loss=f"{smooth:.3f}", refresh=False)
            if run.position == 0 and recipe.held_out:
                bar.write(f"epoch {run.epoch}: held-out {accuracy(run.net, images[kept:], labels[kept:]):.4f}")
            if time.perf_counter() - saved > save_every or run.epoch == recipe.epochs:
                run.save(last)
                saved = time.perf_counter()
    return run


def started(path: Path) -> Start:
    """The weights that a run goes on from, and their card.

    Raises:
        CheckpointError: they are missing, damaged, or of another network.
    """
    state, card = checkpoint.load(path)
    try:
        stem = detect({name: tuple(array.shape) for name, array in state.items()})
    except ValueError as error:
        raise CheckpointError(f"--start {path}: {error}") from error
    if stem != "cifar":
        raise CheckpointError(f"--start {path}: {STEMS[stem]}; only {STEMS['cifar']} is trained here")
    return state, card


def describe_machine(device: torch.device) -> str:
    """What a run trains on, as the card says it."""
    hardware = f"{machine.name()} ({machine.isa()}), {torch.get_num_threads()} threads"
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    return f"{hardware}, convolutions in {'bfloat16' if has_bfloat16(device) else 'float32'}"


def describe(run: Run, test_accuracy: float, test_images: int) -> Card:
    """The card of a finished run. Its command names every flag, so that it outlives the defaults."""
    recipe = asdict(run.recipe)
    return Card(
        command=command_of(recipe),
        recipe=recipe,
        seed=run.recipe.seed,
        epochs=run.recipe.epochs,
        hardware="; then ".join(run.machines),
        started_from=run.started_from,
        training_seconds=round(run.seconds),
        test_accuracy=test_accuracy,
        test_images=test_images,
        torch=torch.__version__,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def command_of(recipe: Mapping[str, Any]) -> str:
    given = [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in recipe.items() if value != ""]
    return " ".join(["python -m models.train --data DIR --out DIR", *given])


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, Recipe]:
    defaults = Recipe()
    parser = argparse.ArgumentParser(
        prog="python -m models.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=cifar10.default_root(), help="holds cifar-10-batches-bin/ (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/train"), help="where last.pt and the checkpoint go (%(default)s)"
    )
    parser.add_argument(
        "--device", type=flags.device, default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)"
    )
    parser.add_argument("--save-every", type=float, default=120, metavar="SECONDS", help="(%(default)s)")
    for name, value in asdict(defaults).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help="(%(default)s)")
    args = parser.parse_args(argv)
    if args.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device: {args.device}, but torch sees no CUDA GPU on this machine")
    try:
        return args, Recipe(**{name: getattr(args, name) for name in asdict(defaults)})
    except ValueError as error:
        parser.error(str(error))


def main(argv: list[str] | None = None) -> None:
    args, recipe = parse(argv)
    try:
        cifar10.ensure(args.data)
        test = cifar10.read(args.data, "test")  # not looked at before the end, but there
        run = train(recipe, args.data, args.out, torch.device(args.device), args.save_every)
    except (cifar10.DatasetError, CheckpointError, ValueError) as error:
        sys.exit(f"error: {error}")
    images, labels = (torch.from_numpy(a).to(run.device) for a in test)
    graphs.set_convolutions(tf32=False, search=False)  # the card's accuracy is that of FP32
    card = describe(run, accuracy(run.net, images, labels), len(images))
    card = checkpoint.save(run.net, args.out / files.BUNDLED.name, card)
    print(
        json.dumps(
            {"test_accuracy": card.test_accuracy, "training_seconds": card.training_seconds, "sha256": card.sha256}
        )
    )


if __name__ == "__main__":
    main()
