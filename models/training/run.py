"""One training run: network, optimiser, and the step that it has reached."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models import checkpoint, cifar10
from models.card import Card
from models.checkpoint import State
from models.files import CheckpointError
from models.resnet import resnet18
from models.topology import Architecture, detect
from models.training import hardware
from models.training.augment import augment, cut_mix
from models.training.infobatch import InfoBatch
from models.training.recipe import Recipe

Start = tuple[State, Card]
"""The weights that a run continues, and their card."""
SAVED = ("step", "epoch", "position", "order", "weights", "seconds", "started_from")
"""Attributes of a run that its saved state holds under their own names."""


class Run:
    """One training run. Equal recipes, machines and data give equal weights, however often the run is stopped."""

    def __init__(self, recipe: Recipe, device: torch.device, count: int, start: Start | None = None) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.device = device
        self.step = 0
        self.epoch = 0
        self.seconds = 0.0
        self.machines = [hardware.describe(device)]
        self.started_from = asdict(start[1]) if start else None
        self.net = resnet18()
        if start:
            weights = {name: torch.from_numpy(array) for name, array in start[0].items()}
            self.net.load_state_dict(weights, strict=False)  # `start_of` checked them; batch counters may be missing
        self.net.to(device, memory_format=torch.channels_last)
        decayed = [p for p in self.net.parameters() if p.ndim > 1]
        plain = [p for p in self.net.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)
        self.infobatch = InfoBatch(count, device)
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        """Choose the images of this epoch; they depend only on seed, epoch and the losses so far."""
        self.position = 0
        share = self.recipe.pruned if self.progress < self.recipe.pruned_until else 0.0
        seeded = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.epoch)
        self.order, weights = self.infobatch.epoch(share, seeded)
        self.weights = weights.to(self.device)

    @property
    def steps(self) -> int:
        """Return the steps of this epoch; images that do not fill a batch are skipped."""
        return len(self.order) // self.recipe.batch_size

    @property
    def progress(self) -> float:
        """Return the progress of the run: 0 at the start, 1 at the end."""
        within = self.position / self.steps if self.position else 0.0
        return (self.epoch + within) / self.recipe.epochs

    @property
    def is_over(self) -> bool:
        """Return whether every epoch is done."""
        return self.epoch >= self.recipe.epochs

    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Make one optimiser step on the next batch and return its mean loss `[] float32`, without waiting for it.

        A step reads nothing back from the device, so that a GPU works on one step while the CPU prepares the next.
        """
        chosen = self.order[self.position * self.recipe.batch_size :][: self.recipe.batch_size]
        flip = self._flip(chosen)
        chosen = chosen.to(self.device, non_blocking=True)
        inputs, classes = self._inputs(images[chosen], flip, labels[chosen])
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate_at(self.progress)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=hardware.has_bfloat16(self.device)):
            losses = F.cross_entropy(
                self.net(inputs), classes, label_smoothing=self.recipe.label_smoothing, reduction="none"
            )
        self.infobatch.update(chosen, losses)
        self.optimizer.zero_grad(set_to_none=True)
        (losses * self.weights[chosen]).mean().backward()
        self.optimizer.step()
        self.step += 1
        self.position += 1
        if self.position == self.steps:
            self.epoch += 1
            self._begin_epoch()
        return losses.detach().mean()

    def _flip(self, chosen: Tensor) -> Tensor:
        """Return the images to mirror: a hash flips half of them, and the next epoch flips the other half."""
        return (chosen * 2_654_435_761 // 2**16 + self.epoch) % 2 == 0

    def _inputs(self, pixels: Tensor, flip: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the augmented batch, and its labels: shares of classes `[N, classes] float32` if images are mixed."""
        recipe = self.recipe
        generator = torch.Generator().manual_seed((recipe.seed + 1) * 1_000_000_007 + self.step)
        side = recipe.resolution_at(self.progress)
        inputs = augment(pixels, flip, recipe.crop_padding, recipe.cutout, side, generator)
        if recipe.cutmix and torch.rand((), generator=generator) < recipe.cutmix:
            inputs, other, own = cut_mix(inputs, generator)
            shares = F.one_hot(labels, len(cifar10.CLASSES)).float()
            labels = own * shares + (1 - own) * shares[other]
        return inputs.contiguous(memory_format=torch.channels_last), labels

    def state(self) -> dict[str, Any]:
        """Return everything that `resume` needs, for torch.save."""
        return {
            "recipe": asdict(self.recipe),
            **{name: getattr(self, name) for name in SAVED},
            "losses": self.infobatch.losses,
            "machines": self.machines,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from a `state` of the same recipe. If its run is over, this machine does not count as one of its."""
        for name in SAVED:
            setattr(self, name, state[name])
        self.order = self.order.cpu()  # the rest of the state is on the device
        self.infobatch.losses = state["losses"]
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        machines = state["machines"]
        is_known = self.is_over or machines[-1] == self.machines[0]
        self.machines = machines if is_known else machines + self.machines


def start_of(path: Path) -> Start:
    """Return the weights that a run can continue, and their card.

    Raises:
        CheckpointError: they are missing, damaged, or of another network.
    """
    state, card = checkpoint.load(path)
    try:
        found = detect({name: tuple(array.shape) for name, array in state.items()})
    except ValueError as error:
        raise CheckpointError(f"--start {path}: {error}") from error
    trained = Architecture(18, "cifar", False, len(cifar10.CLASSES))
    if found != trained:
        raise CheckpointError(
            f"--start {path}: {found.sentence}, {found.classes} classes; only {trained.sentence}, for "
            f"{trained.classes} classes is trained here"
        )
    return state, card
