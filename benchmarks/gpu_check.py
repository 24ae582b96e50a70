"""Every test and measurement that needs a GPU: `make gpu-check`, or `python -m benchmarks.gpu_check --out DIR`.

It runs on a machine that reaches no other: `--wheels` names a folder that `make wheels` filled elsewhere, and torch
comes from the machine's own Python. Each step is a process that leaves its log and results in DIR, so that `--steps`
can run some now and others later. The last step writes docs/results/NAME-OF-THE-GPU.md from the results in DIR.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import wheels
from common import machine as this_machine
from models.files import data_root
from models.variants import VARIANTS

ROOT = Path(__file__).parents[1]
PACKAGES = ROOT / ".gpu-packages"
"""Holds the packages from the wheels."""
OWN_PLUGINS_ONLY = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""Keeps pytest from loading other plugins of the machine, whose warnings would be errors."""
NOT_POSSIBLE = 2
"""Exit status if something is missing."""
LOOK = """
import json
try:
    import torch
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    print(json.dumps({"torch": torch.__version__, "gpus": [[p.name, 10 * p.major + p.minor] for p in found]}))
except ImportError as error:
    print(json.dumps({"torch": "", "gpus": [], "error": str(error)}))
"""


@dataclass(frozen=True)
class Machine:
    """The torch of an interpreter (empty if it has none), and each GPU's name and ten times its compute capability."""

    torch: str
    gpus: list[tuple[str, int]]
    error: str = ""

    @property
    def variants(self) -> str:
        """Return the variants to evaluate, comma-separated: those that the oldest GPU can run."""
        oldest = divmod(min((capability for _, capability in self.gpus), default=0), 10)
        return ",".join(row.name for row in VARIANTS.values() if row.gpu_builder and row.least_capability <= oldest)


@dataclass(frozen=True)
class Check:
    """The places that the flags name."""

    out: Path
    data: Path
    wheels: Path | None
    results: Path

    def lacks_data(self) -> str:
        """Return the file of the data set that is missing, empty if it is there."""
        place = self.data / "cifar-10-batches-bin" / "test_batch.bin"
        what = "CIFAR-10: `python -m models.cifar10` downloads it, --data names another folder"
        return "" if place.exists() else f"{place} ({what})"


@dataclass(frozen=True)
class Step:
    """A command, and a function that names a missing file (empty if none is missing)."""

    name: str
    what: str
    command: Callable[[Check, Machine], str]
    lacks: Callable[[Check], str] = lambda _: ""


STEPS = (
    Step(
        "tests", "the GPU tests",
        lambda c, _: f"pytest -p pytest_timeout -m gpu tests/models --timeout 600 --junit-xml {c.out / 'tests.xml'}",
    ),
    Step(
        "engines", "matrix rate, copy bandwidth, every engine at batch sizes 1 to 1024",
        lambda c, _: f"benchmarks.gpu_engines --out {c.out / 'engines.json'}",
    ),
    Step(
        "evaluate", "accuracy and agreement with fp32, paired on 10,000 images; 1,024 images in batches of 256",
        lambda c, m: (
            f"models.evaluate --variants {m.variants} --device cuda --data {c.data} --out {c.out / 'evaluation'}"
        ),
        Check.lacks_data,
    ),
    Step(
        "served", "raw images over HTTP against the engine alone",
        lambda c, _: f"benchmarks.gpu_served --out {c.out / 'served.json'}",
    ),
    Step(
        "compare", "a short comparison by the load test",
        lambda c, _: f"deploy.compare --out {c.out / 'compare'} --variants fp32,fp16 --concurrency 1,8 --duration 10",
    ),
    Step(
        "report", "one document of all results",
        lambda c, _: f"benchmarks.gpu_report --out {c.out} --results {c.results}",
    ),
)  # fmt: skip


def look() -> Machine:
    """Return the machine as this interpreter sees it, from a process that imports torch."""
    done = subprocess.run([sys.executable, "-c", LOOK], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    return Machine(**json.loads(lines[-1])) if lines else Machine("", [], done.stderr.strip()[-300:])


def missing_packages(folder: Path | None) -> list[str]:
    """Return the requirements of pyproject.toml that neither this interpreter nor the folder has."""
    there = {wheels.name_of(wheel.name.split("-")[0]) for wheel in folder.glob("*.whl")} if folder else set()
    return [line for line in wheels.requirements() if (name := wheels.name_of(line)) not in there and not has(name)]


def has(name: str) -> bool:
    """Return whether this interpreter has the package."""
    return this_machine.version(name) is not None


def install(folder: Path) -> None:
    """Install the folder's wheels into PACKAGES, which the steps search before the interpreter's own packages.

    A virtual environment would not do: made from an interpreter that is in one itself, it does not see its torch.

    Raises:
        subprocess.CalledProcessError: a wheel does not suit this interpreter; pip has printed which.
    """
    quiet = ["--quiet", "--disable-pip-version-check", "--root-user-action", "ignore"]
    pip = [sys.executable, "-m", "pip", "install", *quiet, "--no-index", "--no-deps", "--no-compile"]
    found = sorted(str(wheel) for wheel in folder.glob("*.whl"))
    subprocess.run([*pip, "--upgrade", "--target", str(PACKAGES), *found], check=True)


def run(step: Step, check: Check, machine: Machine) -> bool:
    """Run one step, with its output in OUT/STEP.log, and print the end of it; return whether the step succeeded."""
    log, began = check.out / f"{step.name}.log", time.monotonic()
    print(f"== {step.name}: {step.what}", flush=True)
    command = [sys.executable, "-m", *shlex.split(step.command(check, machine))]
    path = os.pathsep.join(map(str, (PACKAGES, ROOT) if check.wheels else (ROOT,)))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **OWN_PLUGINS_ONLY}
    with log.open("w") as output:
        status = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    lines = log.read_text(errors="replace").splitlines()
    print(*lines[-12:], sep="\n")
    print(f"-- {step.name}: status {status}, {time.monotonic() - began:.0f} s, {log}", flush=True)
    return status == 0


def dry_run(steps: list[Step], check: Check, machine: Machine) -> list[str]:
    """Print the commands of the steps; print and return what is missing."""
    missing = [f"package {line}" for line in missing_packages(check.wheels)]
    if not machine.torch:
        missing.append(f"torch, from this machine's own Python ({machine.error})")
    if not machine.gpus:
        missing.append(f"a CUDA GPU: torch {machine.torch or '(none)'} sees none on this machine")
    for step in steps:
        print(f"{step.name}: {step.what}\n    python -m {step.command(check, machine)}")
    missing += filter(None, (step.lacks(check) for step in steps))
    print(*(f"missing: {what}" for what in missing), sep="\n")
    return missing


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the flags, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [step.name for step in STEPS]
    add = parser.add_argument
    add("--out", type=Path, default=Path("reports/gpu-check"), help="folder for logs and results (%(default)s)")
    add("--data", type=Path, default=data_root(), help="holds cifar-10-batches-bin/ (%(default)s)")
    add("--wheels", type=Path, help="folder of wheels; without it this interpreter must have every package")
    add("--results", type=Path, default=ROOT / "docs" / "results", help="folder for the document (%(default)s)")
    add("--steps", default=",".join(names), help="comma-separated (%(default)s)")
    add("--dry-run", action="store_true", help="only list the steps and what is missing")
    args = parser.parse_args(argv)
    if unknown := set(args.steps.split(",")) - set(names):
        parser.error(f"--steps: expected names of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    if args.wheels and not args.wheels.is_dir():
        parser.error(f"--wheels: {args.wheels} is no folder; `make wheels` fills one")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the steps; return 0, 1 if a step failed, NOT_POSSIBLE if something is missing."""
    args = parse(argv)
    steps = [step for step in STEPS if step.name in args.steps.split(",")]
    check = Check(args.out.resolve(), args.data.resolve(), args.wheels, args.results.resolve())
    machine = look()
    if args.dry_run:
        return NOT_POSSIBLE if dry_run(steps, check, machine) else 0
    if not machine.gpus:
        print(f"error: no CUDA GPU: torch {machine.torch or '(none)'} sees none on this machine", file=sys.stderr)
        return NOT_POSSIBLE
    check.out.mkdir(parents=True, exist_ok=True)
    if lacking := missing_packages(check.wheels):
        print(f"error: missing packages: {', '.join(lacking)}; `make wheels` fills a folder", file=sys.stderr)
        return NOT_POSSIBLE
    if lacks := list(filter(None, (step.lacks(check) for step in steps))):
        print(f"error: missing: {', '.join(lacks)}", file=sys.stderr)
        return NOT_POSSIBLE
    if check.wheels:
        install(check.wheels)
    succeeded = [run(step, check, machine) for step in steps]
    return 0 if all(succeeded) else 1


if __name__ == "__main__":
    sys.exit(main())
