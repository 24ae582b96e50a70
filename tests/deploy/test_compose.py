"""deploy/compose.yaml: valid, true to the service's settings, and every file that it mounts exists."""

import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from service.settings import PREFIX, Settings
from tests import tools
from tests.deploy.manifests import schema

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, one in SERVICES.items() if one["image"].startswith("precision-service")]


def test_the_file_is_valid() -> None:
    """The schema of the Compose specification accepts it, and refuses a misspelt key."""
    jsonschema_rs.validate(schema("Compose"), COMPOSE)
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(schema("Compose"), {"services": {"service": {"imagine": "precision-service"}}})


@pytest.mark.parametrize("name", OURS)
def test_the_settings_exist(name: str) -> None:
    """Each setting is one of the service, and Compose kills a container 10 s or more after delay and drain."""
    environment = SERVICES[name]["environment"]
    values = {key.removeprefix(PREFIX).lower() for key in environment if key.startswith(PREFIX)}
    assert values <= set(Settings.model_fields)
    shutdown = int(environment["PRECISION_SHUTDOWN_DELAY"]) + int(environment["PRECISION_DRAIN_TIMEOUT"])
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= shutdown + 10


@pytest.mark.parametrize("name", SERVICES)
def test_mounted_files_exist(name: str) -> None:
    """Each path of the checkout that a container mounts, or is built from, exists."""
    mounts = [volume.split(":")[0] for volume in SERVICES[name].get("volumes", [])]
    paths = [mount for mount in mounts if mount.startswith("./")] + [
        SERVICES[name].get("build", {}).get("context", ".")
    ]
    assert [path for path in paths if not (DEPLOY / path).exists()] == []


def test_ports_are_published_on_loopback_only() -> None:
    """No port is open to other machines: the services have no keys, and Grafana has a password that everybody knows."""
    ports = [port for one in SERVICES.values() for port in one.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.needs("haproxy")
def test_haproxy_accepts_its_files() -> None:
    """HAProxy reads the general configuration together with the list of replicas."""
    files = [flag for name in ("haproxy.cfg", "compose.cfg") for flag in ("-f", str(DEPLOY / "haproxy" / name))]
    done = subprocess.run([tools.find("haproxy"), "-c", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
