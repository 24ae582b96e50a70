"""A process without HOME whose user has no passwd entry, as in a container with any uid: the cache is never needed."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.files import BUNDLED
from models.resnet import resnet18

UID = 54_321
LEAVE_PASSWD = f"import os; os.setresuid({UID}, 0, 0) if os.getuid() == 0 else None; "
"""Gives a child of root a real uid without entry; as effective root it can still read the interpreter's files."""
LOAD = (
    "from pathlib import Path; from models import loading, selftest; from models.card import Preparation; "
    "path = Path(sys.argv[1]); engine = loading.load('int8', threads=1, checkpoint=path); "
    "print(selftest.examine(engine, path).agreement)"
)
STORE = "from models import files; [files.store(files.place(kind, '', of=1), b'') for kind in sys.argv[1:]]"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Threads that spin while they wait for each other take many times as long on a busy machine."""
KINDS = ("calibration", "reference")
"""Kinds of files in the cache: loading `int8` and its self-test store one of each, as STORE does."""
HELP = """
import runpy
for command in sys.argv[1:]:
    sys.argv = ["", "--help"]
    try:
        runpy.run_module(command, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        print(f"{command} ended with {end.code}", end="\\0")
"""
COMMAND = "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
WARNING = "calibration and reference logits will be made again at every start"


def has_entry(uid: int) -> bool:
    """Return whether passwd has an entry of the user."""
    try:
        return bool(pwd.getpwuid(uid))
    except KeyError:
        return False


@pytest.fixture(autouse=True)
def can_be_homeless() -> None:
    """Skip where no user without entry can be had."""
    if has_entry(UID) or (os.getuid() != 0 and has_entry(os.getuid())):
        pytest.skip("needs root, or a user without passwd entry")


def homeless(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the code in a process without HOME and without passwd entry."""
    known = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME", "CIFAR10_DIR")}
    return subprocess.run(
        [sys.executable, "-c", f"{LEAVE_PASSWD}import sys; {code}", *arguments],
        env=known | ONE_THREAD | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_process_is_homeless() -> None:
    """Python finds no home directory in such a process."""
    assert "Could not determine home directory" in homeless("from pathlib import Path; Path.home()").stderr


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return a user's weights, without calibration and reference logits beside them."""
    torch.manual_seed(3)
    torch.save(resnet18().state_dict(), tmp_path / "own.pt")
    return tmp_path / "own.pt"


def test_own_weights_are_served_without_a_cache(own: Path) -> None:
    """int8 is calibrated and passes its self-test without a cache; one warning says that the work is done again."""
    done = homeless(LOAD, str(own))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
    assert done.stderr.count(WARNING) == 1
    assert "XDG_CACHE_HOME" in done.stderr


@pytest.mark.parametrize("name", ["HOME", "XDG_CACHE_HOME"])
def test_a_cache_that_cannot_be_written_is_one_warning(tmp_path: Path, name: str) -> None:
    """A home or a cache below a file, where no folder can be made, is one warning, too."""
    (tmp_path / "file").write_text("")
    done = homeless(STORE, *KINDS, **{name: str(tmp_path / "file" / "home")})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(WARNING) == 1


def test_a_named_cache_is_used(tmp_path: Path) -> None:
    """XDG_CACHE_HOME gives a process without a home directory a cache, without a warning."""
    done = homeless(STORE, *KINDS, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert (done.returncode, done.stderr) == (0, "")
    kept = (place.name.partition("-")[0] for place in (tmp_path / "cache" / "precision-service").iterdir())
    assert sorted(kept) == sorted(KINDS)


def test_every_command_explains_itself() -> None:
    """`--help` of every command works without a home directory; the data set is then looked for in `data`."""
    commands = [f"models.{name}" for name in ("cifar10", "train", "quantize", "sample", "evaluate")]
    done = homeless(HELP, *commands, "benchmarks.gpu_check")
    assert done.returncode == 0, done.stderr
    for command, text in zip((*commands, "benchmarks.gpu_check"), done.stdout.split("\0"), strict=False):
        assert text.endswith(f"{command} ended with 0")
        assert command == "models.sample" or "(data)" in " ".join(text.split())


def test_quantize_works(pictures: Path, tmp_path: Path) -> None:
    """`quantize` calibrates on a folder without a home directory."""
    flags = ["--checkpoint", str(BUNDLED), "--out", str(tmp_path / "out"), "--calibration-images", str(pictures)]
    done = homeless(COMMAND, "models.quantize", *flags)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "resnet18_cifar10.int8.json").exists()
