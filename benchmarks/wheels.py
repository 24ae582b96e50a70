"""Fill a folder with the wheels that a machine without network needs: `python -m benchmarks.wheels --out DIR`.

Everything that service, load test and `make gpu-check` ask for and what that asks for in turn, in the versions of
constraints.txt, except torch and torchvision (they come with the machine, with its CUDA libraries) and what `--without`
names.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("service", "loadtest")
FROM_DEV = frozenset({"pytest", "pytest-timeout"})
"""Of the tools for development, what runs the GPU tests."""
ON_THE_MACHINE = frozenset({"torch", "torchvision"})
GLIBC = range(39, 16, -1)
"""Minor versions of glibc 2 whose manylinux wheels are taken; pip matches each exactly."""


def requirements() -> list[str]:
    """The lines of pyproject.toml for which wheels are needed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    lines = {*project["dependencies"], *(line for extra in EXTRAS for line in optional[extra])}
    lines |= {line for line in optional["dev"] if name_of(line) in FROM_DEV}
    return sorted(line for line in lines if name_of(line) not in ON_THE_MACHINE)


def name_of(text: str) -> str:
    """The normalised name of a requirement, or of a wheel's file."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[ ]", text)[0]).lower()


def platforms() -> list[str]:
    tags = [*(f"manylinux_2_{minor}_x86_64" for minor in GLIBC), "manylinux2014_x86_64", "manylinux1_x86_64"]
    return [part for tag in tags for part in ("--platform", tag)]


def download(out: Path, python: str, without: Iterable[str]) -> list[Path]:
    """The wheels now in `out`, for Linux on x86-64 and this version of Python.

    Raises:
        subprocess.CalledProcessError: pip found no wheel of something, and said of what.
    """
    out.mkdir(parents=True, exist_ok=True)
    unwanted = {name_of(name) for name in without}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", folder]
        target = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python, *platforms()]
        versions = ["--constraint", str(ROOT / "constraints.txt")]
        subprocess.run([*command, *target, *versions, *requirements()], check=True)
        for wheel in Path(folder).glob("*.whl"):
            if name_of(wheel.name.split("-")[0]) not in unwanted:
                (out / wheel.name).write_bytes(wheel.read_bytes())
    return sorted(out.glob("*.whl"))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.wheels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder")
    parser.add_argument("--python", default="3.12", help="the machine's Python (%(default)s)")
    parser.add_argument("--without", default="", help="comma-separated: what the machine has besides torch")
    args = parser.parse_args(argv)
    try:
        wheels = download(args.out, args.python, filter(None, args.without.split(",")))
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: pip download ended with status {error.returncode}")
    size = sum(wheel.stat().st_size for wheel in wheels)
    print(f"{args.out}: {len(wheels)} wheels, {size:,} bytes")


if __name__ == "__main__":
    main()
