"""The real service with the bundled weights: every variant answers as the stored FP32 logits say."""

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from common import machine
from models import cifar10, files, variants
from models.card import read_card
from models.engines.base import Engine
from models.reference import reference as stored_logits
from models.selftest import Examined
from service import logs
from service.metrics import PHASES
from service.settings import Settings
from service.workers.api import PrecisionAPI
from service.workers.launch import devices
from tests import tools
from tests.service.processes import Service, running

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
ONLY_ON_A_GPU = {"precision_inference_clock_ratio"}
AFTER_A_DEATH = {"precision_worker_death_bytes"}
"""Metrics that have no value before a worker dies; tests/service/test_lost_workers.py kills some."""
RAW = {"content-type": "application/octet-stream"}
VARIANTS = ("fp32", "int8", "int8-dynamic")
"""The variants that every machine runs at a speed that tests can wait for; fp16 needs a GPU."""
HAS_BFLOAT16 = "bf16-cpu" in variants.native_variants(machine.usable_flags())
ONE_THREAD = ("--threads", "1")
"""Workers that start together on few cores take far longer if their threads spin while they wait for each other."""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    flags = ("--variants", ",".join((*VARIANTS, "fp16", "bf16-cpu")), "--max-batch-size", "8", *ONE_THREAD)
    with running(*flags) as service:
        yield service


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    return stored_logits(None, read_card().sha256)


def test_no_process_loads_torch(service: Service) -> None:
    """Neither the HTTP process nor a worker on the CPU has torch's libraries in its memory."""
    processes = [service.process.pid, *(child.pid for child in service.children())]
    served = [card for card in service.client.get("/variants").json()["variants"] if card["state"] == "ready"]
    assert len(service.workers()) == len(served) >= len(VARIANTS)
    assert [pid for pid in processes if "libtorch" in Path(f"/proc/{pid}/maps").read_text()] == []


def logits_of(service: Service, variant: str, count: int) -> np.ndarray:
    images, _ = cifar10.sample()
    answer = service.client.post(f"/predict/{variant}?logits=true", content=images[:count].tobytes(), headers=RAW)
    assert answer.status_code == 200
    return np.array([prediction["logits"] for prediction in answer.json()["predictions"]], np.float32)


@pytest.mark.parametrize(
    ("variant", "tolerance", "agreement"),
    [("fp32", 1e-3, 1.0), ("int8", 1.5, 0.95), ("int8-dynamic", 0.5, 0.97)],
)
def test_each_variant_answers_as_fp32(
    service: Service, reference: np.ndarray, variant: str, tolerance: float, agreement: float
) -> None:
    """Served logits of 64 sample images against the golden ones: largest difference, and the share of equal classes."""
    logits = logits_of(service, variant, 64)
    assert np.abs(logits - reference[:64]).max() < tolerance
    assert (logits.argmax(1) == reference[:64].argmax(1)).mean() >= agreement


def bfloat16_card(service: Service) -> dict[str, Any]:
    """Return what GET /variants says of bf16-cpu."""
    cards: list[dict[str, Any]] = service.client.get("/variants").json()["variants"]
    return next(card for card in cards if card["name"] == "bf16-cpu")


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this CPU has no bfloat16")
def test_bfloat16_is_served_by_a_cpu_that_has_it(service: Service, reference: np.ndarray) -> None:
    """bf16-cpu answers nearly as the golden logits say, and its card has the precision read from the graph."""
    assert np.abs(logits_of(service, "bf16-cpu", 64) - reference[:64]).max() < 0.2
    assert bfloat16_card(service)["convolution_precision"] == "bf16"


@pytest.mark.skipif(HAS_BFLOAT16, reason="this CPU has bfloat16")
def test_bfloat16_is_unavailable_on_a_cpu_without_it(service: Service) -> None:
    """bf16-cpu is `unavailable`; its card and the answer to a request name the instructions that the CPU lacks."""
    card = bfloat16_card(service)
    assert card["state"] == "unavailable"
    assert card["reason"].startswith("bf16-cpu needs a CPU with avx512_bf16 or amx_bf16, and this one (")
    answer = service.client.post("/predict/bf16-cpu", content=cifar10.sample()[0][:1].tobytes(), headers=RAW)
    assert answer.status_code == 503
    assert answer.json()["detail"] == f"bf16-cpu is unavailable: {card['reason']}"


class Untested(PrecisionAPI):
    """A variant that skips the self-test, which takes fp16 half a minute on a CPU; tests/models test its logits."""

    def examine(self, engine: Engine) -> Examined:
        return Examined(1.0, None)


def test_fp16_on_the_cpu_answers_as_fp32(reference: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `fp16_on_cpu` a worker of fp16 gets the CPU, loads there and answers as the golden logits say."""
    monkeypatch.setattr(logs, "configure", lambda level: None)  # leave the log to pytest
    settings = Settings(variants=("fp16",), fp16_on_cpu=True, max_batch_size=2, threads=1)
    (device,) = devices(variants.VARIANTS["fp16"], settings, gpus=0)
    api = Untested("fp16", settings)
    api.setup(device)
    assert api.refusal is None
    assert np.abs(api.predict(cifar10.sample()[0][:4]).logits - reference[:4]).max() < 0.05


def test_a_png_and_its_raw_pixels_give_the_same_int8_logits(service: Service) -> None:
    """Decoding changes nothing, and INT8 does not depend on what else is in the batch."""
    image = cifar10.sample()[0][0]
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "PNG")
    headers = {"content-type": "image/png"}
    answer = service.client.post("/predict/int8?logits=true", content=buffer.getvalue(), headers=headers).json()
    assert answer["predictions"][0]["logits"] == pytest.approx(logits_of(service, "int8", 8)[0].tolist(), abs=0)


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_tritons_client_gets_the_logits_of_predict(service: Service, variant: str) -> None:
    """256 images as one binary tensor against the same images at /predict. fp32 rounds differently by batch size."""
    images = np.resize(cifar10.sample()[0], (256, 3, 32, 32))
    tensor = triton.InferInput("images", list(images.shape), "UINT8").set_data_from_numpy(images)
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as client:
        logits = client.infer(f"resnet18-{variant}", [tensor]).as_numpy("logits")
    np.testing.assert_allclose(logits, logits_of(service, variant, 256), atol=0 if variant == "int8" else 1e-4)


def test_cards_and_metrics_tell_the_same(service: Service) -> None:
    """Sizes and self-test results stand on the card and in the metrics; INT8 is about a quarter of FP32 on disk."""
    cards = {card["name"]: card for card in service.client.get("/variants").json()["variants"]}
    for name in VARIANTS:
        serialized = service.sample("precision_model_bytes", variant=name, kind="serialized")
        assert serialized == cards[name]["serialized_bytes"]
        agreement = service.sample("precision_selftest_agreement_ratio", variant=name)
        assert agreement == cards[name]["selftest_agreement"] >= variants.VARIANTS[name].least_agreement
        assert service.sample("precision_variant_ready", variant=name) == 1
        assert service.sample("precision_memory_bytes", variant=name, kind="rss") > 1e8
    assert cards["int8"]["serialized_bytes"] < 0.26 * cards["fp32"]["serialized_bytes"]


def test_phases_add_up_to_the_duration(service: Service) -> None:
    """The phases of answered requests add up to their durations, and inference was measured."""
    service.client.post("/predict/int8", content=cifar10.sample()[0][:5].tobytes(), headers=RAW)
    phases = sum(
        service.sample("precision_phase_duration_seconds_sum", variant="int8", phase=phase) for phase in PHASES
    )
    duration = service.sample("precision_request_duration_seconds_sum", variant="int8")
    assert phases == pytest.approx(duration, rel=0.05)
    assert service.sample("precision_inference_duration_seconds_sum", variant="int8", device="cpu") > 0


def test_memory_is_measured_per_batch_size(service: Service) -> None:
    """A batch of 8 needs more activation memory than a batch of 1, and the answer says what kind of number it is."""
    images = cifar10.sample()[0]
    one, eight = (
        service.client.post("/predict/fp32", content=images[:count].tobytes(), headers=RAW).json()["memory"]
        for count in (1, 8)
    )
    assert one["kind"] == eight["kind"] == "activation_peak"
    assert eight["peak_bytes"] > 4 * one["peak_bytes"] > 0
    for size, memory in (("1", one), ("8", eight)):
        assert (
            service.sample("precision_activation_peak_bytes", variant="fp32", batch_size=size) == memory["peak_bytes"]
        )


def test_a_scrape_holds_what_is_documented(service: Service) -> None:
    """The metrics in a live scrape are those of docs/metrics.md, with the same labels."""
    service.client.post("/predict/fp32", content=cifar10.sample()[0][:1].tobytes(), headers=RAW)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(service.client.get("/metrics").text):
        for sample in family.samples:
            name = family.name + ("_total" if family.type == "counter" else "")
            if name.startswith("precision_") and not sample.name.endswith("_created"):
                found.setdefault(name, set()).update(set(sample.labels) - {"le"})
    rows = re.findall(r"^\| `(precision_\w+)` \|([\w, ]*)\|", DOCUMENT.read_text(), re.MULTILINE)
    documented = {name: set(re.findall(r"\w+", labels)) for name, labels in rows}
    assert found == {name: labels for name, labels in documented.items() if name not in ONLY_ON_A_GPU | AFTER_A_DEATH}


@pytest.mark.needs("promtool")
def test_promtool_finds_nothing_in_a_scrape(service: Service) -> None:
    """`promtool check metrics` of the real service is clean."""
    scrape = service.client.get("/metrics").content
    done = subprocess.run([tools.find("promtool"), "check", "metrics"], input=scrape, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_damaged_weights_stop_the_start(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One flipped byte ends the start with exit code 1 and a sentence, not a traceback."""
    folder = tmp_path_factory.mktemp("weights")
    source = files.default_path()
    for suffix in (".safetensors", ".json"):
        shutil.copy(files.beside(source, suffix), folder)
    damaged = folder / source.name
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    command = [sys.executable, "-m", "service", "--port", "0", "--checkpoint", str(damaged)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "is damaged" in done.stderr
    assert "Traceback" not in done.stderr


def test_cards_carry_what_was_measured(service: Service) -> None:
    """/variants has the accuracy on 10,000 images of each evaluated variant, measured on the weights that run."""
    cards = {card["name"]: card for card in service.client.get("/variants").json()["variants"]}
    for name in ("fp32", "int8"):
        assert cards[name]["evaluation"]["clean"]["score"]["images"] == 10_000
        assert cards[name]["evaluation"]["checkpoint_sha256"] == cards[name]["checkpoint_sha256"]
    assert cards["int8"]["evaluation"]["clean"]["paired"]["reference"] == "fp32"
    assert cards["fp16"]["evaluation"] is None
