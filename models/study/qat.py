"""Train a recipe of the study: `python -m models.study.qat w4a4-distilled --data DIR`.

Quantization-aware training with learned steps from the trained weights, with labels, or by distillation from the FP32
network without labels. Runs on a GPU if there is one, with convolutions in TF32. A CPU that multiplies in bfloat16 is
given weights and activations in it, which takes half the time and makes less noise than 8 bits do (the SQNR of `bf16`
in docs/quantization.md). The same command continues a run that was stopped, with the same result as one that was not.
"""

import argparse
import io
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from models import checkpoint, cifar10, files, flags
from models.calibrate import Range
from models.command import one_sentence
from models.engines.network import FoldedLayer, fold
from models.files import CheckpointError
from models.pickled import NOT_TORCHS
from models.study import ranges as calibrated
from models.study import results
from models.study.recipes import RECIPES, Recipe
from models.study.simulated import Simulated
from models.topology import Network
from models.training import hardware
from models.training.augment import augment

FOLDER = Path("runs/study/trained")
"""Where runs and their results lie."""
PADDING, CUTOUT = 4, 0
"""Of the augmentation. Without cutout: the network is trained already."""
LEARNING_RATE, WARM_UP = 3e-5, 0.05
"""Adam's; rises over the first share of the steps, then falls like a cosine."""
OF_STEPS = 30.0
"""The learning rate of the logarithms of the quantizers' steps, as a multiple of the one of weights."""
BATCH = 128
"""Images of a step."""
KEPT = ("step", "seconds", "hardware")
"""Attributes of a run that its saved state holds under their own names."""
TEMPERATURE = 2.0
"""Of the distillation (Hinton et al., 2015)."""


@dataclass(frozen=True)
class Plan:
    """Everything that the result of a training run depends on, besides the data."""

    recipe: str
    checkpoint_sha256: str
    steps: int
    batch_size: int = BATCH
    learning_rate: float = LEARNING_RATE
    seed: int = 0

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step."""
        progress = step / self.steps
        if progress < WARM_UP:
            return self.learning_rate * min(1.0, (step + 1) / (self.steps * WARM_UP))
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


class Training:
    """A run: network, teacher, optimiser, and the step that it has reached."""

    def __init__(
        self, plan: Plan, network: Network[FoldedLayer], ranges: Mapping[str, Range], device: torch.device
    ) -> None:
        self.plan, self.recipe, self.device = plan, RECIPES[plan.recipe], device
        bfloat16 = device.type == "cpu" and hardware.has_bfloat16(device)
        self.step, self.seconds = 0, 0.0
        self.hardware = hardware.name(device) + (", convolutions in bfloat16" if bfloat16 else "")
        self.net = Simulated(network, rounds=True, bfloat16=bfloat16).prepare(self.recipe, ranges)
        self.net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teacher = Simulated(network, rounds=False, bfloat16=bfloat16).requires_grad_(requires_grad=False)
        self.teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        named = list(self.net.named_parameters())
        steps, others = ([p for name, p in named if ("log_" in name) is is_step] for is_step in (True, False))
        groups = [{"params": others, "multiple": 1.0}, {"params": steps, "multiple": OF_STEPS}]
        self.optimizer = torch.optim.Adam(groups, plan.learning_rate)

    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Make one step on random images of `[N, 3, 32, 32] uint8`; return its loss, without waiting for it."""
        plan = self.plan
        generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + self.step)
        chosen = torch.randint(0, len(images), (plan.batch_size,), generator=generator).to(self.device)
        flip = torch.rand(plan.batch_size, generator=generator) < 0.5
        x = augment(images[chosen], flip, PADDING, CUTOUT, images.shape[2], generator)
        x = x.contiguous(memory_format=torch.channels_last)
        for group in self.optimizer.param_groups:
            group["lr"] = plan.learning_rate_at(self.step) * group["multiple"]
        loss = self._loss(self.net(x), x, labels[chosen])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return loss.detach()

    def _loss(self, logits: Tensor, x: Tensor, labels: Tensor) -> Tensor:
        if self.recipe.algorithm == "qat":
            return F.cross_entropy(logits, labels, label_smoothing=0.1)
        with torch.no_grad():
            wanted = self.teacher(x)
        ours, theirs = (F.log_softmax(y / TEMPERATURE, 1) for y in (logits, wanted))
        return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * TEMPERATURE**2

    @property
    def is_over(self) -> bool:
        """Return whether every step is done."""
        return self.step >= self.plan.steps

    def save(self, path: Path) -> None:
        """Write the run's state, atomically; without the optimiser's, two thirds of it, once the run is over."""
        content = io.BytesIO()
        state = {"plan": asdict(self.plan)} | {name: getattr(self, name) for name in KEPT}
        optimizer = None if self.is_over else self.optimizer.state_dict()
        torch.save(state | {"net": self.net.state_dict(), "optimizer": optimizer}, content)
        files.write(path, content.getvalue())

    def resume(self, path: Path) -> None:
        """Continue from a file of `save`.

        Raises:
            CheckpointError: the file is damaged, or of another plan.
        """
        state = state_at(path, self.device)
        plan = state["plan"]
        if plan != asdict(self.plan):
            raise CheckpointError(f"{path} was started with {plan}; give the same flags, or delete it")
        for name in KEPT:
            setattr(self, name, state[name])
        self.net.load_state_dict(state["net"])
        if not self.is_over:
            self.optimizer.load_state_dict(state["optimizer"])


def state_at(path: Path, device: torch.device, mmap: bool = False) -> dict[str, Any]:
    """Return the content of a file of `Training.save`. With `mmap` its tensors are read when they are used.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
        return {name: state[name] for name in ("plan", *KEPT, "net", "optimizer")}
    except NOT_TORCHS as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}); delete it to begin anew") from error


def is_over(recipe: str, folder: Path) -> bool:
    """Return whether the folder holds the recipe's run, and the run has made all its steps."""
    place = place_of(recipe, folder)
    if not place.exists():
        return False
    state = state_at(place, torch.device("cpu"), mmap=True)
    return bool(state["step"] >= state["plan"]["steps"])


def place_of(recipe: str, folder: Path) -> Path:
    """Return the file of a recipe's run, which also holds its result once it is over."""
    return folder / f"{recipe}.pt"


def plan_at(recipe: str, folder: Path) -> Plan | None:
    """Return the plan of the run in the folder, None if there is none."""
    place = place_of(recipe, folder)
    return results.load(place.with_suffix(".json"), Plan) if place.exists() else None


def train(
    plan: Plan, network: Network[FoldedLayer], calibration: cifar10.Images, data: Path, folder: Path,
    device: torch.device, save_every: float = 60,
) -> Training:  # fmt: skip
    """Run the plan to its end, continuing from the file in `folder` if it is there; `save_every` is in seconds."""
    recipe, place = RECIPES[plan.recipe], place_of(plan.recipe, folder)
    run = Training(plan, network, calibrated.of_recipe(network, recipe, calibration), device)
    if place.exists():
        run.resume(place)
    if run.is_over:
        return run
    pixels, classes = cifar10.read(data, "train")
    images, labels = torch.from_numpy(pixels.copy()).to(device), torch.from_numpy(classes).to(device)
    results.save(place.with_suffix(".json"), plan)
    began, saved, smooth = time.perf_counter() - run.seconds, time.perf_counter(), None
    with tqdm(total=plan.steps, initial=run.step, desc=plan.recipe, unit="step") as bar:
        for _ in range(run.step, plan.steps):
            loss = run.train_step(images, labels)
            smooth = loss if smooth is None else 0.95 * smooth + 0.05 * loss
            run.seconds = time.perf_counter() - began
            bar.update()
            if run.step % 10 == 0:
                bar.set_postfix(loss=f"{smooth:.4f}", refresh=False)
            if time.perf_counter() - saved > save_every or run.is_over:
                run.save(place)
                saved = time.perf_counter()
    return run


def main(argv: list[str] | None = None) -> None:
    trained = [name for name, row in RECIPES.items() if row.is_trained]
    parser = argparse.ArgumentParser(
        prog="python -m models.study.qat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("recipe", choices=trained, help="the row of models.study.recipes to train")
    add("--data", type=Path, default=files.data_root(), help="holds cifar-10-batches-bin/ (%(default)s)")
    add("--checkpoint", type=Path, default=files.default_path(), help="(%(default)s)")
    add("--out", type=Path, default=FOLDER, help="folder for the run (%(default)s)")
    add("--steps", type=flags.positive, help="batches to train on (the row's)")
    add("--batch-size", type=flags.positive, default=BATCH, help="(%(default)s)")
    add("--learning-rate", type=float, default=LEARNING_RATE, help="(%(default)s)")
    add("--seed", type=flags.whole, default=0, help="(%(default)s)")
    add("--device", type=flags.device, default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    args = parser.parse_args(argv)
    with one_sentence():
        state, card = checkpoint.load(args.checkpoint)
        recipe: Recipe = RECIPES[args.recipe]
        plan = Plan(
            recipe.name, card.sha256, args.steps or recipe.steps, args.batch_size, args.learning_rate, args.seed
        )
        network = fold(state, card)
        run = train(plan, network, calibrated.images_for(args.data), args.data, args.out, torch.device(args.device))
    print(json.dumps({"recipe": recipe.name, "steps": run.step, "seconds": round(run.seconds)}))


if __name__ == "__main__":
    main()
