"""Build the image and run it as clusters do: foreign user, read-only root, limits, no network, no HOME.

`make image-check` needs docker, or podman (`apt install podman buildah`). IMAGE= checks an image that exists.
Requests are sent from inside the container, so that it needs no network.
"""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TAG = "localhost/precision-service"
START_SECONDS = 300
MEMORY = "2g"
CONFINED = ("--user", "12345:12345", "--env", "HOME=/nonexistent", "--cpus", "1", "--memory", MEMORY)
"""A user without a passwd entry, a HOME that does not exist (podman sets a missing one), one core, limited memory."""
ASK = """
import http.client, sys
method, host, path = sys.argv[1:4]
connection = http.client.HTTPConnection(host, 8000, timeout=30)
body = bytes(3072) if method == "POST" else None
connection.request(method, path, body, {"Content-Type": "application/octet-stream"})
answer = connection.getresponse()
print(answer.status, answer.read().decode()[:200])
"""
WRITE = """
for path in ("/x", "/tmp/x", "/home/precision/x"):
    try:
        open(path, "w").close()
        print(path)
    except OSError:
        pass
"""
PEAK = """
from pathlib import Path
peaks = [Path("/sys/fs/cgroup/memory.peak"), Path("/sys/fs/cgroup/memory/memory.max_usage_in_bytes")]
print(*[path.read_text() for path in peaks if path.exists()])
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
        done = subprocess.run([*self.command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failure(f"{' '.join([*self.command, *arguments[:2]])}: {(done.stderr or done.stdout).strip()}")
        return (done.stdout or done.stderr).strip()


@dataclass(frozen=True)
class Container:
    """A running container of the image."""

    engine: Engine
    name: str

    def python(self, code: str, *arguments: str) -> str:
        """Return what Python prints inside the container."""
        return self.engine("exec", self.name, "python", "-c", code, *arguments)

    def ask(self, method: str, host: str, path: str) -> str:
        """Return status and beginning of the answer to a request from inside the container."""
        return self.python(ASK, method, host, path)


def expect(condition: bool, message: str) -> str:
    """Return the message as evidence.

    Raises:
        Failure: the condition does not hold.
    """
    if not condition:
        raise Failure(message)
    return message


def predicts(container: Container) -> str:
    """Check that the first variant answers a prediction."""
    variants = re.findall(r'"name":\s*"([\w-]+)"', container.ask("GET", "127.0.0.1", "/variants"))
    answer = container.ask("POST", "127.0.0.1", f"/predict/{variants[0]}")
    return expect(answer.startswith("200 "), answer)


def speaks_ipv6(container: Container) -> str:
    """Check that the service answers on the IPv6 loopback address."""
    answer = container.ask("GET", "::1", "/health/ready")
    return expect(answer.startswith("200 "), answer)


def has_foreign_user(container: Container) -> str:
    """Check that user and home are those that a cluster might give."""
    seen = container.python("import os; print(os.getuid(), repr(os.environ.get('HOME')))")
    return expect(seen == "12345 '/nonexistent'", f"user and HOME: {seen}")


def cannot_write(container: Container) -> str:
    """Check that the root is read-only, /tmp included."""
    written = container.python(WRITE)
    return expect(not written, f"written files: {written or 'none'}")


def counts_cores(container: Container) -> str:
    """Check that the service counts the one core that it may use."""
    cores = container.python("from common.machine import available_cores; print(available_cores())")
    return expect(cores == "1", f"cores: {cores}")


def fits_memory(container: Container) -> str:
    """Check that the kernel counted no more memory than the limit, and say how much."""
    peak = int(container.python(PEAK).split()[0])
    return expect(peak <= 2 * 2**30, f"peak: {peak / 2**20:.0f} MiB of {MEMORY}")


def is_healthy(container: Container) -> str:
    """Check that the image has a HEALTHCHECK and that its command succeeds."""
    (image,) = json.loads(container.engine("inspect", "--type", "container", container.name))
    check = (image["Config"].get("Healthcheck") or {}).get("Test") or []
    expect(check[:1] == ["CMD"], "the image has no HEALTHCHECK; buildah and podman need --format docker")
    container.engine("exec", container.name, *check[1:])
    return "its command ends with 0"


def is_not_root(container: Container) -> str:
    """Check that the image's own user is not root."""
    user = container.python("import os; print(os.getuid())")
    return expect(user != "0", f"user: {user}")


def stops(container: Container) -> str:
    """Check that SIGTERM ends the service with exit code 0."""
    container.engine("stop", "--time", "60", container.name)
    code = container.engine("inspect", "--type", "container", "--format", "{{.State.ExitCode}}", container.name)
    return expect(code == "0", f"exit code: {code}")


Check = Callable[[Container], str]
CHECKS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[Check, ...]]] = {
    "as the image says": ((), (), (is_not_root, predicts, is_healthy, stops)),
    "confined": (
        CONFINED,
        ("python", "-m", "service", "--host", "::", "--port", "8000"),
        (has_foreign_user, cannot_write, counts_cores, predicts, speaks_ipv6, fits_memory, stops),
    ),
}
"""Name -> flags of the container, command instead of the image's own, and checks in their order."""


@contextmanager
def running(engine: Engine, image: str, flags: tuple[str, ...], command: tuple[str, ...]) -> Iterator[Container]:
    """Run a container without network on a read-only root until the block ends; wait until it is ready.

    Raises:
        Failure: it ended, or it was not ready within START_SECONDS.
    """
    read_only = ("--read-only", "--read-only-tmpfs=false") if engine.is_podman else ("--read-only",)
    name = engine("run", "--detach", "--network", "none", *read_only, *flags, image, *command)
    container = Container(engine, name)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_ready(container):
            expect(engine("inspect", "--format", "{{.State.Running}}", name) == "true", engine("logs", name))
            expect(time.monotonic() < deadline, f"not ready within {START_SECONDS} s")
            time.sleep(2)  # each question starts a Python in the container
        yield container
    finally:
        engine("rm", "--force", name)


def _is_ready(container: Container) -> bool:
    try:
        return container.ask("GET", "127.0.0.1", "/health/ready").startswith("200 ")
    except Failure:
        return False


def build(engine: Engine, target: str, flags: list[str]) -> str:
    """Build the stage `target` of the Dockerfile, or the whole file if it has no such stage, and return the tag."""
    stages = re.findall(r"^FROM .+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE | re.IGNORECASE)
    tag = f"{TAG}:{target}"
    # The format of OCI has no HEALTHCHECK.
    form = ["--format", "docker"] if engine.is_podman else []
    stage = ["--target", target] if target in stages else []
    engine("build", *form, *stage, *flags, "--tag", tag, ".")
    return tag


def find_engine() -> Engine:
    """Return the first of docker and podman that works.

    Raises:
        Failure: neither does.
    """
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return Engine((name,))
    raise Failure("neither docker nor podman works here; on Debian: apt install podman buildah")


def check(engine: Engine, image: str) -> bool:
    """Run all checks, print a line for each, and return whether all hold."""
    passed = True
    for name, (flags, command, checks) in CHECKS.items():
        try:
            with running(engine, image, flags, command) as container:
                for one in checks:
                    print(f"ok    {name}: {one.__name__.replace('_', ' ')}: {one(container)}", flush=True)
        except Failure as failure:
            passed = False
            print(f"FAILED {name}: {failure}", flush=True)
    return passed


def main() -> int:
    """Build unless an image is named, check it, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--image", help="check this image instead of building one")
    parser.add_argument("--target", default="cpu", help="stage of the Dockerfile to build (default: cpu)")
    parser.add_argument("--engine", help="command that runs containers, with its flags (docker or podman)")
    parser.add_argument("--build-flags", default="", help="more flags for the build, such as --isolation=chroot")
    args = parser.parse_args()
    try:
        engine = Engine(tuple(shlex.split(args.engine))) if args.engine else find_engine()
        image = args.image or build(engine, args.target, shlex.split(args.build_flags))
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 2
    return 0 if check(engine, image) else 1


if __name__ == "__main__":
    sys.exit(main())
