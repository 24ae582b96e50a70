"""A request that is certain to be refused is refused before its body arrives; in these tests it never does."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from tests.service.pictures import png
from tests.service.processes import Service, running, until

PNG = {"content-type": "image/png"}
PREDICT, INFER = b"/predict/%b", b"/v2/models/resnet18-%b/infer"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    flags = ("--variants", "fp32,fp16", "--max-waiting-images", "1", "--max-batch-size", "1")
    with running(*flags, module="tests.service.fakes") as service:
        yield service


def ask(service: Service, path: bytes, header: bytes = b"") -> bytes:
    """Send the head of a request, which announces a body, and return the answer."""
    address = urlsplit(service.url)
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n%b\r\n" % (path, header)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(head)
        return connection.recv(65536)


@pytest.mark.parametrize("path", [PREDICT, INFER])
@pytest.mark.parametrize(
    ("variant", "header", "status"),
    [
        (b"fp64", b"", b"404"),
        (b"fp16", b"", b"503"),
        (b"fp32", b"X-Request-Timeout: soon\r\n", b"400"),
        (b"fp32", b"Content-Encoding: br\r\n", b"415"),
    ],
)
def test_a_head_may_be_enough_to_refuse(
    service: Service, path: bytes, variant: bytes, header: bytes, status: bytes
) -> None:
    """The variant does not exist or cannot run here, or a header cannot be followed."""
    assert ask(service, path % variant, header).startswith(b"HTTP/1.1 " + status)


def insist(service: Service) -> int:
    """Send an image until it is not refused as overloaded, as it is if another one has not left the queue yet."""
    while True:
        answer = httpx.post(f"{service.url}/predict/fp32", content=png(1), headers=PNG, timeout=60)
        if answer.status_code != 503:
            return answer.status_code


def test_a_full_queue_reads_nothing(service: Service) -> None:
    """The answer is 503 overloaded; the request that the worker holds and the queued one are answered."""
    worker = service.worker()
    with ThreadPoolExecutor(2) as pool:
        worker.suspend()
        try:
            sent = [pool.submit(insist, service) for _ in range(2)]
            until(lambda: service.sample("precision_queue_depth", variant="fp32") == 1, what="full queue")
            until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 2, what="both requests")
            before = service.outcomes("fp32")
            answers = [ask(service, path % b"fp32") for path in (PREDICT, INFER)]
        finally:
            worker.resume()
        assert [answer.split()[1] for answer in answers] == [b"503", b"503"]
        assert [answer.result() for answer in sent] == [200, 200]
    assert service.outcomes("fp32", since=before) == {"overloaded": 2, "ok": 2}
