"""The servers of `benchmarks.startup`: this service, other checkouts of it, and its peers."""

import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.starting import Body, Pixels, Server, tensor
from benchmarks.wrk import ROOT

NETWORKS = ROOT / "runs" / "startup"
"""The folder of the peers' networks and settings."""
PEERS, MLSERVER, BENTOML, RAY, LEAN = (
    ROOT / f".venv-{name}" / "bin" for name in ("bench", "mlserver", "bentoml", "ray", "lean")
)
INT8, FP32, BOTH = ("int8",), ("fp32",), ("fp32", "int8")


def service(name: str, variants: Sequence[str], python: str = sys.executable, folder: Path = ROOT) -> Server:
    """Return the service of a checkout with these variants, as the row `name`."""
    flags = ("--variants", ",".join(variants), "--log-level", "warning")
    return Server(
        name, lambda port: (python, "-m", "service", "--port", str(port), *flags), "/health/ready",
        tuple(f"/predict/{variant}" for variant in variants), has_workers=True, folder=folder,
    )  # fmt: skip


def bare(name: str, kind: str) -> Server:
    """Return a server of `benchmarks.bare`."""
    command = (str(PEERS / "python"), "-m", "benchmarks.bare", kind)
    return Server(name, lambda port: (*command, str(port), str(NETWORKS)), "/health", ("/predict",))


def picture(pixels: Pixels) -> Body:
    """Return the first of `[N, 3, 32, 32] uint8` images as a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels[0].transpose(1, 2, 0)).save(file, "PNG")
    return Body(file.getvalue(), "image/png")


def bentoml(name: str) -> Server:
    """Return BentoML with OpenVINO's own INT8 network."""
    command = (str(BENTOML / "bentoml"), "serve", "benchmarks.bentoml_service:Int8", "--host", "127.0.0.1", "--port")
    environment = {"PYTHONPATH": str(ROOT), "NETWORKS": str(NETWORKS)}
    return Server(name, lambda port: (*command, str(port)), "/readyz", ("/predict",), picture, environment=environment)


def ray(name: str) -> Server:
    """Return Ray Serve with OpenVINO's own INT8 network."""
    command = (str(RAY / "python"), "-m", "benchmarks.ray_service")
    return Server(
        name, lambda port: (*command, str(port), str(NETWORKS)), "/-/healthz", ("/predict",), picture,
        environment={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def mlserver(name: str) -> Server:
    """Return MLServer with OpenVINO's own INT8 network."""
    settings = {"implementation": "benchmarks.mlserver_runtime.Int8", "parameters": {"uri": str(NETWORKS)}}
    return mlserver_with(name, settings, tensor, NETWORKS / "mlserver")


def mlserver_with(name: str, model: Mapping[str, Any], body: Callable[[Pixels], Body], folder: Path) -> Server:
    """Return MLServer with one model, its own ports and folders, and else its defaults.

    Args:
        name: the row.
        model: the settings of the model `int8`.
        body: makes the body of a prediction.
        folder: holds the settings.
    """

    def command(port: int) -> Sequence[str]:
        settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
        settings |= {"environments_dir": str(folder / "environments")}  # the default is in the working directory
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps({"name": "int8", **model}))
        return str(MLSERVER / "mlserver"), "start", str(folder)

    return Server(
        name, command, "/v2/health/ready", ("/v2/models/int8/infer",), body, ports=3,
        environment={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


OURS = tuple(service(f"this service, {'+'.join(variants)}", variants) for variants in (INT8, FP32, BOTH))
WITHOUT_TORCH = service("this service, fp32+int8, without torch installed", BOTH, str(LEAN / "python"))
BARE = (
    bare("ONNX Runtime int8 in FastAPI", "onnxruntime"),
    bare("OpenVINO int8 in FastAPI", "openvino"),
    bare("OpenVINO int8 in LitServe", "litserve"),
)
SERVERS = (*OURS, WITHOUT_TORCH, *BARE, mlserver("OpenVINO int8 in MLServer"))


def others(folder: Path) -> tuple[Server, ...]:
    """Return the service of the checkout in `folder`, with the variants of OURS."""
    return tuple(
        service(f"the other checkout, {'+'.join(variants)}", variants, folder=folder) for variants in (INT8, FP32, BOTH)
    )
