"""`deploy/compare.py`, with stand-ins for the service and the load test."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common import machine
from models.variants import native_variants

SCRIPT = Path(__file__).parents[1] / "deploy" / "compare.py"
SERVICE = """
import http.server, os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
open("pids", "w").write(f"{os.getpid()} {child.pid}")
open("service-flags", "w").write(" ".join(sys.argv[1:]))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health/ready" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""
BROKEN_SERVICE = "raise SystemExit('the checkpoint is damaged')"
LOADTEST = "import sys; open('loadtest-flags', 'w').write(' '.join(sys.argv[1:])); sys.exit({status})"
ENDLESS_LOADTEST = """
import signal, sys
def report(signum, frame):
    open("report", "w")
    sys.exit(128 + signum)
for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(signum, report)
print("started", flush=True)
signal.pause()
"""


def start(folder: Path, *flags: str, service: str = SERVICE, loadtest: str = "") -> subprocess.Popen[str]:
    """Start the script in a folder whose modules `service` and `loadtest` come before the real ones."""
    (folder / "service.py").write_text(service)
    (folder / "loadtest.py").write_text(loadtest)
    command = [sys.executable, str(SCRIPT), "--out", "out", *flags]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def running(folder: Path) -> list[int]:
    """Return the processes of the stand-in service that are alive."""
    return [pid for pid in map(int, (folder / "pids").read_text().split()) if is_running(pid)]


def is_running(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("status", [0, 3])
def test_status_is_the_load_tests(tmp_path: Path, status: int) -> None:
    """The script ends with the load test's exit status, and the service and its children are gone."""
    script = start(tmp_path, loadtest=LOADTEST.format(status=status))
    script.communicate(timeout=60)
    assert (script.returncode, running(tmp_path)) == (status, [])


def test_flags_go_to_the_load_test(tmp_path: Path) -> None:
    """The load test gets every flag, and the URL of the service."""
    start(tmp_path, "--duration", "5", loadtest=LOADTEST.format(status=0)).communicate(timeout=60)
    flags = (tmp_path / "loadtest-flags").read_text()
    assert re.fullmatch(r"--url http://127\.0\.0\.1:\d+ --out out --duration 5", flags)


def test_variants_go_to_both(tmp_path: Path) -> None:
    """The service loads the variants that the load test compares."""
    start(tmp_path, "--variants", "fp32,int8", loadtest=LOADTEST.format(status=0)).communicate(timeout=60)
    assert "--variants fp32,int8" in (tmp_path / "service-flags").read_text()
    assert "--variants fp32,int8" in (tmp_path / "loadtest-flags").read_text()


def test_a_prepared_folder_is_served_and_its_images_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CHECKPOINT names it for both; the user's own --images win."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.split.json").touch()
    monkeypatch.setenv("CHECKPOINT", "mine")
    start(tmp_path, loadtest=LOADTEST.format(status=0)).communicate(timeout=60)
    assert " --images mine " in (tmp_path / "loadtest-flags").read_text()
    start(tmp_path, "--images=other", loadtest=LOADTEST.format(status=0)).communicate(timeout=60)
    assert "--images mine" not in (tmp_path / "loadtest-flags").read_text()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [("", ",".join(("fp32", "fp16", "int8", *native_variants(machine.usable_flags())))), ("int8", "")],
)
def test_the_cpus_native_variants_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: str, expected: str
) -> None:
    """By default the service loads its own variants and those native to the CPU; PRECISION_VARIANTS replaces both."""
    monkeypatch.setenv("PRECISION_VARIANTS", environment)
    start(tmp_path, loadtest=LOADTEST.format(status=0)).communicate(timeout=60)
    assert (tmp_path / "service-flags").read_text().partition(" --variants ")[2] == expected


def test_help_is_the_load_tests(tmp_path: Path) -> None:
    """The load test prints the help, and no service starts."""
    start(tmp_path, "--help", loadtest=LOADTEST.format(status=0)).communicate(timeout=60)
    assert (tmp_path / "loadtest-flags").read_text() == "--help"
    assert not (tmp_path / "pids").exists()


def test_service_that_does_not_start(tmp_path: Path) -> None:
    """The error message is the end of the service's log, without a traceback."""
    script = start(tmp_path, service=BROKEN_SERVICE)
    _, err = script.communicate(timeout=60)
    assert script.returncode == 1
    assert "the checkpoint is damaged" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(tmp_path: Path, signum: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and a closed terminal leave the load test's report, and no process behind."""
    script = start(tmp_path, loadtest=ENDLESS_LOADTEST)
    assert script.stdout is not None
    assert any(line == "started\n" for line in script.stdout)
    script.send_signal(signum)
    _, err = script.communicate(timeout=60)
    assert (script.returncode, running(tmp_path)) == (128 + signum, [])
    assert (tmp_path / "report").exists()
    assert "Traceback" not in err
