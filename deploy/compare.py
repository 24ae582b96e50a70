"""Start the service on a free port, run the load test against it, and stop it. `make compare` runs this script.

    [CHECKPOINT=FOLDER] python deploy/compare.py --out DIR [--variants fp32,int8] [any flag of `python -m loadtest`]

If CHECKPOINT (or PRECISION_CHECKPOINT) is a folder that `python -m models.prepare` wrote, the service serves its
network and the load test sends its held-out images, unless --images names others.

Without `--variants` and PRECISION_VARIANTS the service loads its default variants, and `bf16-cpu` and `fp16-cpu` if the
CPU computes natively in them. `--help` shows the help of the load test. The service takes its PRECISION_* variables,
except keys and certificates, and writes its log to DIR/service.log. The script leaves no process of the service behind,
whatever ends it.
"""

import argparse
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common import machine
from models.split import SUFFIX as SPLIT
from models.variants import DEFAULT_VARIANTS, native_variants

START_SECONDS = 600
"""Seconds that the service may take until it is ready."""
STOP_SECONDS = 30
"""Seconds that the service may take to end by itself."""
POLL_SECONDS = 0.2
"""Seconds between two checks of whether the service is ready."""
HOST = "127.0.0.1"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOADTEST = (sys.executable, "-m", "loadtest")
DROPPED = ("PRECISION_API_KEYS", "PRECISION_API_KEY_FILE", "PRECISION_SSL_CERTFILE", "PRECISION_SSL_KEYFILE")
"""Settings that the service does not get: it listens on loopback only, so it needs no keys and certificates."""


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def is_ready(port: int) -> bool:
    """Return whether `/health/ready` answers 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_until_ready(service: subprocess.Popen[bytes], port: int) -> None:
    """Wait until `/health/ready` answers 200.

    Raises:
        RuntimeError: the service ended, or was not ready within START_SECONDS.
    """
    deadline = time.monotonic() + START_SECONDS
    while not is_ready(port):
        if service.poll() is not None:
            raise RuntimeError(f"the service ended with status {service.returncode} before it was ready")
        if time.monotonic() > deadline:
            raise RuntimeError(f"the service was not ready after {START_SECONDS} seconds")
        time.sleep(POLL_SECONDS)


def stop(service: subprocess.Popen[bytes]) -> None:
    """End the service and every process of its group. Further signals do not interrupt this."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    service.terminate()
    with suppress(subprocess.TimeoutExpired):
        service.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(service.pid, signal.SIGKILL)
    service.wait()


@contextmanager
def running_service(flags: list[str], log: Path) -> Iterator[str]:
    """Start a service, yield its URL when it is ready, and stop it.

    The service runs in a session of its own, so Ctrl-C reaches it only through `stop`.
    """
    port = free_port()
    command = [sys.executable, "-m", "service", "--host", HOST, "--port", str(port), *flags]
    with log.open("wb") as output:
        # A line per request of the comparison would hide the lines that matter.
        environment = {"PRECISION_LOG_LEVEL": "warning"} | os.environ
        for name in DROPPED:
            environment.pop(name, None)
        service = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=environment
        )
    try:
        print(f"starting the service on port {port}, its log is {log}", flush=True)
        wait_until_ready(service, port)
        yield f"http://{HOST}:{port}"
    finally:
        stop(service)


def compare(command: list[str]) -> int:
    """Run the load test to its end and return its exit code, which is 128 + N if signal N ended it.

    Signals go on to the load test, which writes its report before it ends. It has a process group of its own, so that
    it gets Ctrl-C once and not twice.
    """
    with subprocess.Popen(command, process_group=0) as loadtest:
        for signum in SIGNALS:
            signal.signal(signum, lambda received, _: loadtest.send_signal(received))
        code = loadtest.wait()
    return code if code >= 0 else 128 - code


def served(asked: str | None) -> list[str]:
    """Return the flags that choose the service's variants; none if PRECISION_VARIANTS chooses them."""
    if not asked and os.environ.get("PRECISION_VARIANTS"):
        return []
    return ["--variants", asked or ",".join((*DEFAULT_VARIANTS, *native_variants(machine.usable_flags())))]


def sent(argv: list[str]) -> list[str]:
    """Return the flag that sends the images of the prepared folder that is served; none where --images chooses them."""
    served = os.environ.get("PRECISION_CHECKPOINT") or os.environ.get("CHECKPOINT")
    is_chosen = any(flag.partition("=")[0] == "--images" for flag in argv)
    is_prepared = served and not is_chosen and any(Path(served).glob(f"*{SPLIT}"))
    return ["--images", str(served)] if is_prepared else []


def main(argv: list[str]) -> int:
    """Run the comparison and return the load test's exit code; 1 if the service did not start."""
    if {"-h", "--help"} & set(argv):
        return subprocess.run([*LOADTEST, "--help"], check=False).returncode
    parser = argparse.ArgumentParser(prog="deploy/compare.py", allow_abbrev=False, add_help=False)
    parser.add_argument("--out", type=Path, required=True, help="folder for the reports and service.log")
    parser.add_argument(
        "--variants",
        help="variants that the service loads, comma-separated (default: its own, and those native to the CPU)",
    )
    known, _ = parser.parse_known_args(argv)
    known.out.mkdir(parents=True, exist_ok=True)
    log = known.out / "service.log"
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda received, _: sys.exit(128 + received))
    try:
        with running_service(served(known.variants), log) as url:
            return compare([*LOADTEST, "--url", url, *sent(argv), *argv])
    except RuntimeError as error:
        print(*log.read_text(errors="replace").splitlines()[-20:], f"error: {error}", sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
