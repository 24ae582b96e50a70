"""Mistakes under /v2: each is an error of the protocol that says what was expected, and counts."""

import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.service.inference import INFER, PIXELS, images
from tests.service.pictures import png, solid
from tests.service.processes import Service


@pytest.fixture(scope="module")
def service(shared_fakes: Service) -> Service:
    """Return the service with fake engines that several files share."""
    return shared_fakes


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as client:
        yield client


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
