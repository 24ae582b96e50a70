"""Containers of docker or podman, and requests that are sent from inside them, so that they need no network."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TAG = "localhost/precision-service"
START_SECONDS = 300
ASK = """
import http.client, sys
method, host, path = sys.argv[1:4]
connection = http.client.HTTPConnection(host, 8000, timeout=30)
body = bytes(3072) if method == "POST" else None
connection.request(method, path, body, {"Content-Type": "application/octet-stream"})
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""


class Failure(Exception):
    """A check that did not hold, or a command that failed."""


@dataclass(frozen=True)
class Engine:
    """A command that runs containers: docker or podman, with flags of its own."""

    command: tuple[str, ...]

    @property
    def is_podman(self) -> bool:
        """True for podman, whose flags differ in two places."""
        return Path(self.command[0]).name == "podman"

    def __call__(self, *arguments: str) -> str:
        """Return the output of a command, or its errors if it has no output.

        Raises:
            Failure: it failed; the message has its errors.
        """
        # conmon, which podman starts, leaves a file `oom` in its folder.
        elsewhere = tempfile.gettempdir()
        done = subprocess.run([*self.command, *arguments], cwd=elsewhere, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failure(f"{' '.join([*self.command, *arguments[:2]])}: {(done.stderr or done.stdout).strip()}")
        return (done.stdout or done.stderr).strip()

    def logs(self, name: str) -> str:
        """Return what a container wrote to both of its outputs."""
        command = [*self.command, "logs", name]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout


@dataclass(frozen=True)
class Container:
    """A running container of the image."""

    engine: Engine
    name: str

    def python(self, code: str, *arguments: str) -> str:
        """Return what Python prints inside the container."""
        return self.engine("exec", self.name, "python", "-c", code, *arguments)

    def ask(self, method: str, host: str, path: str) -> str:
        """Return status and body of the answer to a request from inside the container."""
        return self.python(ASK, method, host, path)

    def get(self, path: str) -> str:
        """Return status and body of the answer to a GET, empty while nothing answers.

        Raises:
            Failure: the container ended.
        """
        try:
            return self.ask("GET", "127.0.0.1", path)
        except Failure:
            state = self.engine("inspect", "--type", "container", "--format", "{{.State.Running}}", self.name)
            expect(state == "true", self.engine.logs(self.name))
            return ""

    def wait_until_ready(self) -> None:
        """Return once every variant is ready.

        Raises:
            Failure: the container ended, or START_SECONDS passed.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self.get("/health/ready").startswith("200 "):
            expect(time.monotonic() < deadline, f"not ready within {START_SECONDS} s")
            time.sleep(2)  # each question starts a Python in the container


def expect(condition: bool, message: str) -> str:
    """Return the message as evidence.

    Raises:
        Failure: the condition does not hold.
    """
    if not condition:
        raise Failure(message)
    return message


@contextmanager
def running(engine: Engine, image: str, flags: tuple[str, ...], command: tuple[str, ...]) -> Iterator[Container]:
    """Run a container without network on a read-only root until the block ends.

    Raises:
        Failure: the container could not be started.
    """
    read_only = ("--read-only", "--read-only-tmpfs=false") if engine.is_podman else ("--read-only",)
    name = engine("run", "--detach", "--network", "none", *read_only, *flags, image, *command)
    try:
        yield Container(engine, name)
    finally:
        engine("rm", "--force", name)


def find_engine() -> Engine:
    """Return the first of docker and podman that works.

    Raises:
        Failure: neither does.
    """
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return Engine((name,))
    raise Failure("neither docker nor podman works here; on Debian: apt install podman buildah")
