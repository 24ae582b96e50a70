"""A deadline counts from the headers, and the word of its error says who set it: the service or the client."""

import http.client
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.service import fakes
from tests.service.pictures import png, solid
from tests.service.processes import Service, running, until

OWN = 0.4
"""The service's request timeout in seconds."""
HEAD = b"POST /predict/fp32 HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running("--variants", "fp32", "--request-timeout", str(OWN), module="tests.service.fakes") as service:
        yield service


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ("0", "client_deadline"),
        ("0.2", "client_deadline"),
        (str(OWN), "deadline"),
        ("10", "deadline"),
        ("", "deadline"),
    ],
)
def test_a_deadline_that_the_client_set_is_its_own(service: Service, given: str, word: str) -> None:
    """The error is the client's only if its deadline is shorter than the service's; the fake takes a second."""
    before = service.outcomes("fp32").get(word, 0)
    headers = {"content-type": "image/png"} | ({"x-request-timeout": given} if given else {})
    answer = service.client.post("/predict/fp32", content=png(fakes.STALL), headers=headers)
    assert answer.status_code == 504
    assert answer.json()["type"].endswith(f":{word}")
    assert answer.json()["detail"] == f"no answer within {given if word == 'client_deadline' else OWN} s"
    assert service.outcomes("fp32")[word] == before + 1


@pytest.mark.parametrize(("microseconds", "word"), [(1, "client_deadline"), (10**10, "deadline")])
def test_the_timeout_of_tritons_client_is_a_deadline_of_the_client(
    service: Service, microseconds: int, word: str
) -> None:
    """The parameter `timeout` counts in microseconds."""
    before = service.outcomes("fp32").get(word, 0)
    pixels = solid(fakes.STALL)[None]
    tensor = triton.InferInput("images", list(pixels.shape), "UINT8").set_data_from_numpy(pixels)
    with (
        triton.InferenceServerClient(service.url.removeprefix("http://")) as client,
        pytest.raises(InferenceServerException) as raised,
    ):
        client.infer("resnet18-fp32", [tensor], timeout=microseconds)
    assert raised.value.status() == "504"
    assert service.outcomes("fp32")[word] == before + 1


@pytest.mark.parametrize(
    ("header", "status", "word"),
    [(b"X-Request-Timeout: 0.2\r\n", 504, b"client_deadline"), (b"", 408, b"too_slow")],
)
def test_a_deadline_passes_while_the_body_arrives(service: Service, header: bytes, status: int, word: bytes) -> None:
    """It passes long before `receive_timeout`. The service's own deadline gives 408: the upload was too slow."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(HEAD + header + b"\r\n" + bytes(10))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == status
        assert b"urn:precision-service:problem:" + word in answer.read()


def send(service: Service, value: int) -> int:
    headers = {"content-type": "image/png"}
    return httpx.post(service.url + "/predict/fp32", content=png(value), headers=headers, timeout=30).status_code


def test_a_deadline_is_honoured_before_compute(service: Service) -> None:
    """A request that waited too long gets 504 and is not executed."""
    until(lambda: send(service, 1) == 200, what="an idle worker")
    batches, images = (service.sample(f"precision_batch_size_{name}", variant="fp32") for name in ("count", "sum"))
    with ThreadPoolExecutor(2) as pool:
        stalled = pool.submit(send, service, fakes.STALL)
        until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="stalled batch")
        waited = pool.submit(send, service, 1)
        assert (stalled.result(), waited.result()) == (504, 504)
    until(lambda: service.sample("precision_batch_size_count", variant="fp32") == batches + 1, what="the batch's end")
    assert send(service, 2) == 200
    assert service.sample("precision_batch_size_sum", variant="fp32") == images + 2
