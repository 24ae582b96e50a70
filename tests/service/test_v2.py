"""The Open Inference Protocol, spoken by Triton's own client; answers are held against /predict."""

import asyncio
import base64
import gzip
import json
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from models.card import read_card
from tests.service.pictures import encode, png, solid
from tests.service.processes import Service, running

VERSION = read_card().sha256[:12]
RAW = {"content-type": "application/octet-stream"}
PIXELS = np.stack([solid(value) for value in (3, 4, 9)])
INFER = "/v2/models/resnet18-fp32/infer"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    limits = ("--max-body-bytes", "4000000", "--max-images", "256")
    with running("--variants", "fp32,fp16,int8", *limits, module="tests.service.fakes") as service:
        yield service


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as client:
        yield client


def images(pixels: np.ndarray, binary: bool = True) -> triton.InferInput:
    """`[N, 3, 32, 32] uint8` as an input."""
    tensor = triton.InferInput("images", list(pixels.shape), "UINT8")
    return tensor.set_data_from_numpy(pixels, binary_data=binary)


def encoded(parts: list[bytes], binary: bool = True) -> triton.InferInput:
    """Encoded images as an input."""
    tensor = triton.InferInput("images", [len(parts)], "BYTES")
    texts = parts if binary else [base64.b64encode(part) for part in parts]
    return tensor.set_data_from_numpy(np.array(texts, object), binary_data=binary)


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
    }


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
    three = next(batch for batch in after["batch_stats"] if batch["batch_size"] == 3)
    assert three["compute_infer"]["ns"] == three["compute_infer"]["count"] * 1_000_000
    assert abs(after["last_inference"] / 1000 - time.time()) < 60
    assert len(client.get_inference_statistics()["model_stats"]) == 3


def body(**changes: Any) -> bytes:
    """An infer request for one image as JSON."""
    tensor = {"name": "images", "shape": [1, 3, 32, 32], "datatype": "UINT8", "data": [3] * 3072}
    return json.dumps({"inputs": [tensor | changes]}).encode()


@pytest.mark.parametrize(
    ("content", "headers", "status", "words"),
    [
        (b"{", {}, 400, "JSON"),
        (b'{"inputs": []}', {}, 400, "inputs"),
        (b"{}" * 50, {"inference-header-content-length": "101"}, 400, "100 bytes"),
        (b"{}", {"inference-header-content-length": "-1"}, 400, "-1"),
        (body(name="pixels"), {}, 422, "`images`"),
        (body(datatype="FP32"), {}, 422, "UINT8"),
        (body(shape=[3, 32, 32]), {}, 422, "[N, 3, 32, 32]"),
        (body(shape=[2, 3, 32, 32]), {}, 422, "2 images"),
        (body(shape=[0, 3, 32, 32], data=[]), {}, 422, "at least 1"),
        (body(data=[256] * 3072), {}, 400, "0 to 255"),
        (body(data=[True] * 3072), {}, 400, "integers"),
        (body(data=[[[3]], {}]), {}, 400, "integers"),
        (body(data=["x" * 1_000_000] + [""] * 100_000), {}, 400, "integers"),  # as a NumPy array: 400 GB
        (body()[:-1] + b', "parameters": {"timeout": 1%b}}' % (b"0" * 400), {}, 400, "timeout"),
        (body(data=[0.5] * 3072), {}, 400, "integers"),
        (body(data=[[1], [1, 2]]), {}, 400, "integers"),
        (body(data=None), {}, 400, "`data`"),
        (body(parameters={"binary_data_size": 5}), {}, 400, "binary_data_size is 5"),
        (body(datatype="BYTES", shape=[1], data=["*"]), {}, 400, "base64"),
        (body(datatype="BYTES", shape=[1], data=[1]), {}, 400, "base64"),
        (body(datatype="BYTES", shape=[1], data=["aaaa"]), {}, 400, "PNG"),
        (bytes(100), {"inference-header-content-length": "0"}, 422, "3072"),
        (body(), {"x-request-timeout": ""}, 400, "X-Request-Timeout"),
        (b"x", {"content-encoding": "br"}, 415, "gzip"),
        (b"x", {"content-encoding": "gzip"}, 400, "gzip"),
        (gzip.compress(body()) + b"x", {"content-encoding": "gzip"}, 400, "gzip"),
    ],
)
def test_a_mistake_is_told_and_counted(
    service: Service, content: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    """`{"error": ...}` with the status of the error table, and one count under its word."""
    before = sum(service.outcomes("fp32").values())
    answer = service.client.post(INFER, content=content, headers={"content-type": "application/json"} | headers)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert words in answer.json()["error"]
    assert sum(service.outcomes("fp32").values()) == before + 1


def test_a_query_means_nothing(service: Service) -> None:
    """The protocol has none; what /predict would refuse is ignored."""
    headers = {"inference-header-content-length": "0", "content-type": "image/png"}
    assert service.client.post(f"{INFER}?top_k=x", content=png(7), headers=headers).status_code == 200


def test_a_binary_element_longer_than_the_body_is_refused(service: Service) -> None:
    """The length of a BYTES element is not believed."""
    head = body(datatype="BYTES", shape=[1], data=None, parameters={"binary_data_size": 6})
    headers = {"inference-header-content-length": str(len(head))}
    answer = service.client.post(INFER, content=head + struct.pack("<I", 1_000_000) + b"xx", headers=headers)
    assert answer.status_code == 400
    assert "element 0" in answer.json()["error"]


def test_a_compressed_bomb_is_refused(service: Service) -> None:
    """What is decompressed is limited, too."""
    bomb = zlib.compress(bytes(100_000_000))
    assert service.client.post(INFER, content=bomb, headers={"content-encoding": "deflate"}).status_code == 413


@pytest.mark.parametrize(("model", "version"), [("fp32", ""), ("resnet18-fp64", ""), ("resnet18-fp32", "1")])
def test_an_unknown_model_is_an_error_of_the_protocol(
    client: triton.InferenceServerClient, model: str, version: str
) -> None:
    """404 with what there is; the client raises its own exception from it."""
    with pytest.raises(InferenceServerException, match=r"expected one of the models|the version of") as raised:
        client.infer(model, [images(PIXELS)], version)
    assert raised.value.status() == "404"


def test_an_unavailable_model_says_why(client: triton.InferenceServerClient) -> None:
    """503 with the reason, as /predict does."""
    with pytest.raises(InferenceServerException, match="CUDA") as raised:
        client.infer("resnet18-fp16", [images(PIXELS)])
    assert raised.value.status() == "503"


def test_the_timeout_of_a_request_is_its_deadline(client: triton.InferenceServerClient) -> None:
    """Microseconds; the fake takes a second for this image."""
    with pytest.raises(InferenceServerException, match=r"no answer within 0\.1 s") as raised:
        client.infer("resnet18-fp32", [images(solid(254)[None])], timeout=100_000)
    assert raised.value.status() == "504"


@pytest.mark.parametrize(
    ("call", "arguments", "words"),
    [
        ("load_model", ("resnet18-fp32",), "--variants"),
        ("unload_model", ("resnet18-fp32",), "--variants"),
        ("get_trace_settings", (), "/metrics"),
        ("get_trace_settings", ("resnet18-fp32",), "/metrics"),
        ("update_trace_settings", ("resnet18-fp32", {}), "/metrics"),
        ("get_log_settings", (), "--log-level"),
        ("update_log_settings", ({},), "--log-level"),
        ("get_system_shared_memory_status", (), "shared memory"),
        ("register_system_shared_memory", ("mine", "/mine", 3072), "shared memory"),
        ("unregister_system_shared_memory", ("mine",), "shared memory"),
        ("get_cuda_shared_memory_status", ("mine",), "shared memory"),
        ("register_cuda_shared_memory", ("mine", b"handle", 0, 3072), "shared memory"),
        ("unregister_cuda_shared_memory", (), "shared memory"),
    ],
)
def test_a_call_that_does_not_apply_says_why(
    client: triton.InferenceServerClient, call: str, arguments: tuple[Any, ...], words: str
) -> None:
    """404 with what there is instead."""
    with pytest.raises(InferenceServerException, match=words) as raised:
        getattr(client, call)(*arguments)
    assert raised.value.status() == "404"


@pytest.mark.parametrize("side", ["input", "output"])
def test_shared_memory_is_refused(client: triton.InferenceServerClient, side: str) -> None:
    """An answer in the body would leave the client's region as it was."""
    tensor, output = images(PIXELS), triton.InferRequestedOutput("logits")
    if side == "input":
        tensor.set_shared_memory("mine", PIXELS.nbytes)
    else:
        output.set_shared_memory("mine", 120)
    with pytest.raises(InferenceServerException, match="shared memory") as raised:
        client.infer("resnet18-fp32", [tensor], outputs=[output])
    assert raised.value.status() == "422"


def test_a_path_that_is_not_there_is_an_error_of_the_protocol(service: Service) -> None:
    """404 in the protocol's shape, and no detour to where the Host header says."""
    for path in ("/v2/nothing", "/v2/health/live/"):
        answer = service.client.get(path)
        assert (answer.status_code, set(answer.json())) == (404, {"error"})
