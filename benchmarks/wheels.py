"""Fill a folder with the wheels that a machine without network needs: `python -m benchmarks.wheels --out DIR`.

They are the requirements of service, load test and `make gpu-check`, and their requirements in turn, in the versions of
constraints.txt. torch and torchvision are left out, because the machine has them with its CUDA libraries; so are the
packages of `--without`.
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
EXTRAS = ("cpu", "loadtest", "test")
"""The extras to install. The machine has torch and torchvision, which the extra `service` has besides `cpu`."""
GLIBC = range(39, 16, -1)
"""Minor versions of glibc 2 whose manylinux wheels fit; pip matches each exactly."""


def requirements() -> list[str]:
    """Return the lines of pyproject.toml that need wheels."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    return sorted({*project["dependencies"], *(line for extra in EXTRAS for line in optional[extra])})


def name_of(text: str) -> str:
    """Return the normalised name in a requirement or in a wheel's file name."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[ ]", text)[0]).lower()


def platforms() -> list[str]:
    """Return pip's flags for the platforms whose wheels fit."""
    tags = [*(f"manylinux_2_{minor}_x86_64" for minor in GLIBC), "manylinux2014_x86_64", "manylinux1_x86_64"]
    return [part for tag in tags for part in ("--platform", tag)]


def download(out: Path, python: str, without: Iterable[str]) -> list[Path]:
    """Download the wheels for Linux on x86-64 and this version of Python; return all wheels in `out`.

    Raises:
        subprocess.CalledProcessError: a package has no wheel; pip has printed its name.
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
    parser.add_argument("--out", type=Path, required=True, help="folder for the wheels")
    parser.add_argument("--python", default="3.12", help="version of the machine's Python (%(default)s)")
    parser.add_argument("--without", default="", help="comma-separated packages that the machine has besides torch")
    args = parser.parse_args(argv)
    try:
        wheels = download(args.out, args.python, filter(None, args.without.split(",")))
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: pip download ended with status {error.returncode}")
    size = sum(wheel.stat().st_size for wheel in wheels)
    print(f"{args.out}: {len(wheels)} wheels, {size:,} bytes")


if __name__ == "__main__":
    main()
