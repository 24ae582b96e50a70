"""Run the Deployment of the overlay `cpu` with `podman kube play` and ask it for a prediction: `make kube-play-check`.

Needs podman, the image that `make image-check` builds, and kubectl (`make kubectl`). One replica runs, without network,
and requests are sent from inside its container.
"""

import argparse
import base64
import secrets
import shlex
import shutil
import sys
import tempfile
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from deploy.containers import ROOT, TAG, Container, Engine, Failure, expect

OVERLAY = ROOT / "deploy" / "kubernetes" / "overlays" / "cpu"
KEYS = "precision-keys"
CONTAINER = "^precision-pod.*-precision$"
"""The pattern of the name that podman gives to the container `precision` of the Deployment `precision`."""
ASK = """
import http.client, sys
for key in sys.argv[3:]:
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=30)
    body = bytes(3072) if sys.argv[1] == "POST" else None
    headers = {"Content-Type": "application/octet-stream", "Authorization": f"Bearer {key}"}
    connection.request(sys.argv[1], sys.argv[2], body, headers)
    answer = connection.getresponse()
    if answer.status != 401:
        break
print(answer.status, answer.read().decode()[:200])
"""
"""Ask a route with one key after another, until one is accepted."""

Manifest = dict[str, Any]


def overlay() -> list[Manifest]:
    """Return the documents of the overlay.

    Raises:
        Failure: kubectl is missing, or refuses the overlay.
    """
    kubectl = shutil.which("kubectl") or shutil.which("kubectl", path=str(Path(sys.executable).parent))
    if not kubectl:
        raise Failure("kubectl is missing: make kubectl")
    return list(yaml.safe_load_all(Engine((kubectl,))("kustomize", str(OVERLAY))))


def encoded(key: str) -> str:
    """Return a key as a Secret holds it."""
    return base64.b64encode(key.encode()).decode()


def playable(documents: list[Manifest], image: str, client_key: str, metrics_key: str) -> list[Manifest]:
    """Return what podman can play: ConfigMap and Deployment, and the Secret with both keys.

    podman 4.3 reads no variable from a Secret, so the container gets the value itself. It runs probes by a curl in the
    container, which the image lacks, and publishes every port of a container, so that both are left out.
    """
    played = deepcopy([document for document in documents if document["kind"] in ("ConfigMap", "Deployment")])
    (deployment,) = (document for document in played if document["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container = {name: value for name, value in container.items() if name != "ports" and "Probe" not in name}
    container["image"] = image
    container["env"] = [
        {"name": one["name"], "value": metrics_key} if "valueFrom" in one else one for one in container["env"]
    ]
    deployment["spec"]["template"]["spec"]["containers"] = [container]
    deployment["spec"]["replicas"] = 1
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": KEYS},
        "data": {"keys": encoded(client_key), "metrics": encoded(metrics_key)},
    }
    return [secret, *played]


def check(engine: Engine, image: str) -> None:
    """Play the overlay, print what it answers, and take it down.

    Raises:
        Failure: podman refuses the manifests, or an answer is not as expected.
    """
    client_key, metrics_key = secrets.token_hex(24), secrets.token_hex(24)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump_all(playable(overlay(), image, client_key, metrics_key), file)
        file.flush()
        try:
            engine("kube", "play", "--network", "none", file.name)
            container = Container(engine, engine("ps", "--all", "--quiet", "--filter", f"name={CONTAINER}"))
            container.wait_until_ready()
            # podman 4.3 does not decode the file of a Secret, so that the encoded text is the key there.
            keys = (client_key, encoded(client_key))
            for method, path, *known in (("POST", "/predict/int8", *keys), ("GET", "/metrics", metrics_key)):
                answer = container.python(ASK, method, path, *known)
                expect(answer.startswith("200 "), answer)
                print("ok   ", f"{method} {path}:", answer.partition("\n")[0], flush=True)
            answer = container.python(ASK, "POST", "/predict/int8", "no such key")
            print("ok    without a key:", expect(answer.startswith("401 "), answer), flush=True)
        finally:
            engine("kube", "down", file.name)
            for kind in ("secret", "volume"):  # `down` of podman 4.3 leaves both
                with suppress(Failure):
                    engine(kind, "rm", KEYS)


def main() -> int:
    """Run the check and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--image", default=f"{TAG}:cpu", help="image to run (default: %(default)s)")
    parser.add_argument("--engine", default="podman", help="podman with its flags (default: %(default)s)")
    args = parser.parse_args()
    try:
        check(Engine(tuple(shlex.split(args.engine))), args.image)
    except Failure as failure:
        print(f"FAILED {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
