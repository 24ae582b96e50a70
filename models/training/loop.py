"""The loop of a training run: data, steps, progress bar, saving."""

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from models import cifar10
from models.training import saving
from models.training.augment import normalise
from models.training.recipe import Recipe
from models.training.run import Run, start_of

BAR = "{percentage:5.1f} % of {total} epochs [{elapsed}<{remaining}{postfix}]"
SHOW_LOSS_EVERY = 50
"""Steps between two updates of the loss beside the progress bar."""
SPLIT_SEED = 12345
"""Orders the training set; its last images are the held-out ones."""


def train(recipe: Recipe, data: Path, out: Path, device: torch.device, save_every: float) -> Run:
    """Run `recipe` to its end, continuing from `out/last.pt` if it is there; `save_every` is in seconds.

    Raises:
        DatasetError, CheckpointError: a file that the run needs is missing or damaged.
        ValueError: the recipe does not fit the data set.
    """
    pixels, classes = cifar10.read(data, "train")
    kept = len(pixels) - recipe.held_out
    if kept * (1 - recipe.pruned) < recipe.batch_size:
        raise ValueError(f"--batch-size: {recipe.batch_size} is more than an epoch may have of {kept:,} images")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(pixels))
    images, labels = (torch.from_numpy(a[order]).to(device) for a in (pixels, classes))
    run = begun(recipe, device, kept, out / "last.pt")
    out.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = True  # the shapes never change, so that a search for the fastest kernels pays
    began, saved, smooth = time.perf_counter() - run.seconds, time.perf_counter(), None
    with tqdm(total=recipe.epochs, unit="epoch", mininterval=2, bar_format=BAR) as bar:
        while not run.is_over:
            loss = run.train_step(images[:kept], labels[:kept])
            smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss
            run.seconds = time.perf_counter() - began
            bar.update(run.progress * recipe.epochs - bar.n)
            if run.step % SHOW_LOSS_EVERY == 0:  # it waits for the device
                bar.set_postfix(loss=f"{smooth:.3f}", refresh=False)
            if run.position == 0 and recipe.held_out:
                bar.write(f"epoch {run.epoch}: held-out {accuracy(run.net, images[kept:], labels[kept:]):.4f}")
            if time.perf_counter() - saved > save_every or run.is_over:
                saving.save(run, out / "last.pt")
                saved = time.perf_counter()
    return run


def begun(recipe: Recipe, device: torch.device, count: int, last: Path) -> Run:
    """Return a new run, or the one that `last` holds. The checkpoint `start` is read for a new run only."""
    if last.exists():
        run = Run(recipe, device, count)
        saving.resume(run, last)
        return run
    return Run(recipe, device, count, start_of(Path(recipe.start)) if recipe.start else None)


@torch.no_grad()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return top-1 accuracy (0 to 1) of `net` on `[N, 3, 32, 32] uint8` images, without test-time augmentation."""
    net.eval()
    batches = zip(images.split(500), labels.split(500), strict=True)
    correct = sum(int((net(normalise(x)).argmax(1) == y).sum()) for x, y in batches)
    net.train()
    return correct / len(images)
