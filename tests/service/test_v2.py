"""The Open Inference Protocol, spoken by Triton's own client; answers are compared with /predict."""

import asyncio
import json
import re
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from models.card import read_card
from service.v2.documents import version
from tests.service.inference import INFER, PIXELS, encoded, images
from tests.service.pictures import encode, png
from tests.service.processes import Service

DIGEST = read_card().sha256
VERSION = str(int(DIGEST[:12], 16))
RAW = {"content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def service(shared_fakes: Service) -> Service:
    """Return the service with fake engines that several files share."""
    return shared_fakes


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as client:
        yield client


def predicted(service: Service, pixels: np.ndarray, variant: str = "fp32") -> np.ndarray:
    """The logits that /predict gives."""
    answer = service.client.post(f"/predict/{variant}?logits=true", content=pixels.tobytes(), headers=RAW).json()
    return np.array([prediction["logits"] for prediction in answer["predictions"]], np.float32)


def test_server_metadata(client: triton.InferenceServerClient) -> None:
    """Name, version and extensions."""
    document = client.get_server_metadata()
    assert document["name"] == "precision-service"
    assert document["extensions"] == [
        "binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"
    ]  # fmt: skip


def test_health(client: triton.InferenceServerClient) -> None:
    """Live, ready, and the readiness of each model, by version, too; an unavailable one is not ready."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("resnet18-fp32")
    assert client.is_model_ready("resnet18-fp32", VERSION)
    assert not client.is_model_ready("resnet18-fp16")
    assert not client.is_model_ready("resnet18-fp64")
    assert not client.is_model_ready("resnet18-fp32", "1")


@pytest.mark.parametrize("version", ["", VERSION])
def test_model_metadata(client: triton.InferenceServerClient, version: str) -> None:
    """Tensors, platform and the checkpoint as version."""
    assert client.get_model_metadata("resnet18-int8", version) == {
        "name": "resnet18-int8",
        "versions": [VERSION],
        "platform": "fake",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 3, 32, 32]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
        "properties": {"checkpoint_sha256": DIGEST},
    }


@pytest.mark.parametrize("digest", [DIGEST, "f" * 64, "12ab" * 16, "e5" * 32, "0a" * 32, ""])
def test_perf_analyzer_finds_the_version(digest: str) -> None:
    """perf_analyzer reads a version with `std::stoll`, and looks up the statistics of what it read."""
    (read,) = re.findall(r"^\s*[+-]?\d+", version(digest))
    assert str(int(read)) == version(digest)
    assert int(read) < 2**63


def test_model_config(client: triton.InferenceServerClient) -> None:
    """Triton's model configuration: tensors without the batch dimension, and how many images a request may hold."""
    document = client.get_model_config("resnet18-int8")
    assert document["max_batch_size"] == 256
    assert document["input"] == [{"name": "images", "data_type": "TYPE_UINT8", "dims": [3, 32, 32]}]
    assert document["output"] == [{"name": "logits", "data_type": "TYPE_FP32", "dims": [10]}]


def test_repository_index(service: Service, client: triton.InferenceServerClient) -> None:
    """Every model with version and state; on request only those that answer."""
    index = {entry["name"]: entry for entry in client.get_model_repository_index()}
    assert {name: entry["state"] for name, entry in index.items()} == {
        "resnet18-fp32": "READY",
        "resnet18-fp16": "UNAVAILABLE",
        "resnet18-int8": "READY",
    }
    assert "CUDA" in index["resnet18-fp16"]["reason"]
    ready = service.client.post("/v2/repository/index", json={"ready": True}).json()
    assert {(entry["name"], entry["version"]) for entry in ready} == {
        ("resnet18-fp32", VERSION),
        ("resnet18-int8", VERSION),
    }


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("kind", ["pixels", "encoded"])
def test_infer_gives_the_logits_of_predict(
    service: Service, client: triton.InferenceServerClient, kind: str, binary_in: bool, binary_out: bool
) -> None:
    """Pixels and encoded images, as bytes and as JSON, in both directions."""
    tensor = (
        images(PIXELS, binary_in) if kind == "pixels" else encoded([encode(picture) for picture in PIXELS], binary_in)
    )
    output = triton.InferRequestedOutput("logits", binary_data=binary_out)
    result = client.infer("resnet18-int8", [tensor], VERSION, [output], request_id="mine")
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("mine", "resnet18-int8", VERSION)
    assert ("data" in response["outputs"][0]) is not binary_out
    np.testing.assert_array_equal(result.as_numpy("logits"), predicted(service, PIXELS, "int8"))


def test_infer_without_outputs_gives_all_of_them_as_bytes(client: triton.InferenceServerClient) -> None:
    """The client then asks for `binary_data_output`; no id is made up."""
    response = client.infer("resnet18-fp32", [images(PIXELS)])
    assert response.get_output("logits")["parameters"] == {"binary_data_size": 3 * 10 * 4}
    assert "id" not in response.get_response()


def test_async_infer(client: triton.InferenceServerClient) -> None:
    """Requests in flight together come back each to its own caller."""
    waiting = [client.async_infer("resnet18-fp32", [images(PIXELS[i : i + 1])]) for i in range(3)]
    assert [int(one.get_result().as_numpy("logits").argmax()) for one in waiting] == [3, 4, 9]


def test_the_asyncio_client_is_answered(service: Service) -> None:
    """The same client on aiohttp."""

    async def ask() -> np.ndarray:
        async with triton_aio.InferenceServerClient(service.url.removeprefix("http://")) as client:
            return (await client.infer("resnet18-fp32", [images(PIXELS)])).as_numpy("logits")

    np.testing.assert_array_equal(asyncio.run(ask()), predicted(service, PIXELS))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request_is_inflated(client: triton.InferenceServerClient, algorithm: str) -> None:
    """Content-Encoding gzip and deflate; the answer may be compressed as well, and is not."""
    compression = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    result = client.infer("resnet18-fp32", [images(PIXELS)], **compression)
    assert result.as_numpy("logits").argmax(1).tolist() == [3, 4, 9]


def test_a_body_made_by_the_client_can_be_sent_by_another(service: Service) -> None:
    """generate_request_body and parse_response_body, with httpx between them."""
    body, length = triton.InferenceServerClient.generate_request_body([images(PIXELS)], request_id="mine")
    answer = service.client.post(INFER, content=body, headers={"inference-header-content-length": str(length)})
    result = triton.InferenceServerClient.parse_response_body(
        answer.content, header_length=int(answer.headers["inference-header-content-length"])
    )
    assert result.get_response()["id"] == "mine"
    np.testing.assert_array_equal(result.as_numpy("logits"), predicted(service, PIXELS))


@pytest.mark.parametrize("binary", [True, False])
def test_classification(client: triton.InferenceServerClient, binary: bool) -> None:
    """The best classes as `value:index:label`."""
    output = triton.InferRequestedOutput("logits", binary_data=binary, class_count=2)
    found = client.infer("resnet18-fp32", [images(PIXELS[:2])], outputs=[output]).as_numpy("logits")
    texts = [[text.decode() if binary else text for text in row] for row in found.tolist()]
    assert texts == [["5.000000:3:cat", "0.000000:0:airplane"], ["5.000000:4:deer", "0.000000:0:airplane"]]


def test_a_body_of_pixels_alone_is_a_raw_request(service: Service) -> None:
    """Inference-Header-Content-Length 0: the body is the tensor, and the answer is binary."""
    answer = service.client.post(INFER, content=PIXELS.tobytes(), headers={"inference-header-content-length": "0"})
    length = int(answer.headers["inference-header-content-length"])
    assert json.loads(answer.content[:length])["outputs"][0]["shape"] == [3, 10]
    found = np.frombuffer(answer.content[length:], "<f4").reshape(3, 10)
    np.testing.assert_array_equal(found, predicted(service, PIXELS))


def test_an_encoded_image_alone_is_a_raw_request(service: Service) -> None:
    """With the content type of an image the body is one encoded image."""
    headers = {"inference-header-content-length": "0", "content-type": "image/png"}
    answer = service.client.post(INFER, content=png(7), headers=headers)
    assert np.frombuffer(answer.content[-40:], "<f4").argmax() == 7


def test_256_raw_images_in_one_call_are_fast(service: Service, client: triton.InferenceServerClient) -> None:
    """A few milliseconds of the service's processor each, however busy the machine is: no JSON number is on the way."""
    pixels = np.random.default_rng(0).integers(0, 100, (256, 3, 32, 32), np.uint8)
    tensor, process = images(pixels), psutil.Process(service.process.pid)
    before = sum(process.cpu_times()[:2])
    for _ in range(20):
        result = client.infer("resnet18-fp32", [tensor])
    seconds = (sum(process.cpu_times()[:2]) - before) / 20
    assert "data" not in result.get_output("logits")
    np.testing.assert_array_equal(result.as_numpy("logits"), predicted(service, pixels))
    assert seconds < 0.03


def test_statistics_tell_what_was_done(client: triton.InferenceServerClient, service: Service) -> None:
    """Requests, images, batches and times of a model grow by what was sent, and are the numbers of /metrics."""
    before = client.get_inference_statistics("resnet18-int8")["model_stats"][0]
    client.infer("resnet18-int8", [images(PIXELS)])
    with pytest.raises(InferenceServerException):
        client.infer("resnet18-int8", [encoded([b"junk"])])
    (after,) = client.get_inference_statistics("resnet18-int8", VERSION)["model_stats"]
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 1
    stats, was = after["inference_stats"], before["inference_stats"]
    assert (stats["success"]["count"] - was["success"]["count"], stats["fail"]["count"] - was["fail"]["count"]) == (
        1,
        1,
    )
    assert stats["compute_infer"]["ns"] - was["compute_infer"]["ns"] == pytest.approx(1e6, abs=10)
    assert stats["success"]["ns"] >= stats["queue"]["ns"] + stats["compute_infer"]["ns"]
    assert stats["success"]["count"] == service.sample("precision_requests_total", variant="int8", outcome="ok")
    assert after["inference_count"] == service.sample("precision_images_total", variant="int8")
    assert after["execution_count"] == service.sample("precision_batch_size_count", variant="int8")
    for word, phase in {"queue": "queue", "compute_input": "copy_in", "compute_infer": "inference"}.items():
        name = "precision_phase_duration_seconds_count"
        assert stats[word]["count"] == service.sample(name, variant="int8", phase=phase)
    three = next(batch for batch in after["batch_stats"] if batch["batch_size"] == 3)
    assert three["compute_infer"]["ns"] == three["compute_infer"]["count"] * 1_000_000
    assert abs(after["last_inference"] / 1000 - time.time()) < 60
    assert len(client.get_inference_statistics()["model_stats"]) == 3
