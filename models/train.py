"""Train the ResNet18 on CIFAR-10: `python -m models.train --data DIR --out DIR`.

SGD with Nesterov momentum, a one-cycle learning rate (linear warm-up, cosine to zero), label smoothing, random crops,
flips that alternate from epoch to epoch (https://arxiv.org/abs/2404.00498), CutMix, cutout. The defaults are meant for
a GPU and are the recipe of the bundled weights. On a CPU, let early epochs run on smaller images ("progressive
resizing", https://dawn.cs.stanford.edu/benchmark/) and leave out easy images (InfoBatch,
https://arxiv.org/abs/2303.04947), with `--cutmix 0`. Convolutions run in bfloat16 if the device has instructions for
it. The same command continues a run that was stopped, with the same result as a run that was not.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from models import checkpoint, cifar10, files, flags, needs

needs.torch_or_exit("python -m models.train")

import torch

from models.command import one_sentence
from models.engines import graphs
from models.training import result
from models.training.loop import accuracy, train
from models.training.recipe import Recipe


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, Recipe]:
    """Return the flags, and the recipe that they describe."""
    defaults = asdict(Recipe())
    parser = argparse.ArgumentParser(
        prog="python -m models.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=files.data_root(), help="holds cifar-10-batches-bin/ (%(default)s)")
    add("--out", type=Path, default=Path("runs/train"), help="folder for last.pt and the checkpoint (%(default)s)")
    add("--device", type=flags.device, default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    add("--save-every", type=float, default=120, metavar="SECONDS", help="(%(default)s)")
    for name, value in defaults.items():
        add(f"--{name.replace('_', '-')}", type=type(value), default=value, help="(%(default)s)")
    args = parser.parse_args(argv)
    if args.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device: {args.device}, but torch sees no CUDA GPU on this machine")
    try:
        return args, Recipe(**{name: getattr(args, name) for name in defaults})
    except ValueError as error:
        parser.error(str(error))


def main(argv: list[str] | None = None) -> None:
    args, recipe = parse(argv)
    with one_sentence():
        cifar10.ensure(args.data)
        test = cifar10.read(args.data, "test")  # used after the training, but missing files must show before it
        run = train(recipe, args.data, args.out, torch.device(args.device), args.save_every)
        images, labels = (torch.from_numpy(a).to(run.device) for a in test)
        graphs.set_convolutions(tf32=False, search=False)  # the accuracy on the card is that of FP32
        card = result.describe(run, accuracy(run.net, images, labels), len(images))
        card = checkpoint.save(run.net, args.out / files.BUNDLED.name, card)
    summary = {name: getattr(card, name) for name in ("test_accuracy", "training_seconds", "sha256")}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
