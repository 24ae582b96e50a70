"""Build the image and run it as clusters do: foreign user, read-only root, limits, no network, no HOME.

`make image-check` needs docker, or podman (`apt install podman buildah`). IMAGE= checks an image that exists.
"""

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from deploy.containers import ROOT, TAG, Container, Engine, Failure, expect, find_engine, running

CONFINED = ("--user", "12345:12345", "--env", "HOME=/nonexistent", "--cpus", "1", "--memory", "2g")
"""A user without a passwd entry, a HOME that does not exist (podman sets a missing one), one core, limited memory."""
BOTH = ("--env", "PRECISION_VARIANTS=fp32,int8")
HEAVY_LOAD = ROOT / "deploy" / "heavy_load.py"
TOO_LITTLE = ("--memory", "400m", "--memory-swap", "400m")
"""Less memory than fp32 and int8 need, and more than the service needs without them; no swap."""
DEATH_SECONDS = 120
WRITE = """
for path in ("/x", "/tmp/x", "/home/precision/x"):
    try:
        open(path, "w").close()
        print(path)
    except OSError:
        pass
"""
MEMORY = """
from pathlib import Path
from common import cgroup
peaks = [Path("/sys/fs/cgroup/memory.peak"), Path("/sys/fs/cgroup/memory/memory.max_usage_in_bytes")]
peak = next((f"{int(p.read_text()) / 2**20:.0f}" for p in peaks if p.exists()), "unknown")
print(cgroup.oom_kills(), peak, f"{cgroup.memory_limit() / 2**20:.0f}")
"""


def ready_variants(container: Container) -> list[str]:
    """Return the names of the variants that are ready."""
    states = json.loads(container.get("/health/ready").partition(" ")[2])["variants"]
    return [name for name, state in states.items() if state == "ready"]


def predicts(container: Container) -> str:
    """Check that every ready variant answers a prediction."""
    variants = ready_variants(container)
    for name in variants:
        answer = container.ask("POST", "127.0.0.1", f"/predict/{name}")
        expect(answer.startswith("200 "), f"{name}: {answer[:200]}")
    return expect(bool(variants), f"variants: {', '.join(variants)}")


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


def takes_load(container: Container) -> str:
    """Send load that needs much memory, and say how it was answered."""
    return container.python(HEAVY_LOAD.read_text(), *ready_variants(container))


def fits_memory(container: Container) -> str:
    """Check that the kernel killed no process for memory, and say how much memory was used."""
    kills, peak, limit = container.python(MEMORY).split()
    return expect(kills == "0", f"peak: {peak} MiB of {limit}, processes killed: {kills}")


def names_lack_of_memory(container: Container) -> str:
    """Check that log, /variants and metric say that the kernel killed a worker for memory."""
    deadline = time.monotonic() + DEATH_SECONDS
    told = "because its cgroup was out of memory; it had up to"
    counted = re.compile(r'precision_worker_deaths_total{cause="out_of_memory",variant="[\w-]+"} [1-9]')
    while not (counted.search(container.get("/metrics")) and told in container.get("/variants")):
        expect(time.monotonic() < deadline, f"no worker died for memory within {DEATH_SECONDS} s")
        time.sleep(2)  # each question starts a Python in the container
    lines = [line for line in container.engine.logs(container.name).splitlines() if told in line]
    expect(bool(lines), "the log does not say it")
    return str(json.loads(lines[0])["message"])


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


@dataclass(frozen=True)
class Case:
    """One way to run the image, and what is checked then, in order."""

    checks: tuple[Check, ...]
    flags: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    """The command in place of the image's own."""
    gets_ready: bool = True


UNDER_LOAD = (takes_load, predicts, fits_memory, stops)
CASES = {
    "as the image says": Case((is_not_root, predicts, is_healthy, stops)),
    "confined": Case(
        (has_foreign_user, cannot_write, counts_cores, predicts, speaks_ipv6, fits_memory, stops),
        CONFINED,
        ("python", "-m", "service", "--host", "::", "--port", "8000"),
    ),
    "fp32 and int8 in 1 GiB": Case(UNDER_LOAD, ("--cpus", "2", "--memory", "1g", *BOTH)),
    "int8 as in the overlay cpu": Case(
        UNDER_LOAD, ("--cpus", "2", "--memory", "1280m", "--env", "PRECISION_VARIANTS=int8")
    ),
    "too little memory": Case((names_lack_of_memory, stops), (*TOO_LITTLE, *BOTH), gets_ready=False),
}


def build(engine: Engine, target: str, flags: list[str]) -> str:
    """Build the stage `target` of the Dockerfile, or the whole file if it has no such stage, and return the tag."""
    stages = re.findall(r"^FROM .+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE | re.IGNORECASE)
    tag = f"{TAG}:{target}"
    # The format of OCI has no HEALTHCHECK.
    form = ["--format", "docker"] if engine.is_podman else []
    stage = ["--target", target] if target in stages else []
    engine("build", *form, *stage, *flags, "--tag", tag, str(ROOT))
    return tag


def check(engine: Engine, image: str) -> bool:
    """Run all checks, print a line for each, and return whether all hold."""
    passed = True
    for name, case in CASES.items():
        try:
            with running(engine, image, case.flags, case.command) as container:
                if case.gets_ready:
                    container.wait_until_ready()
                for one in case.checks:
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
