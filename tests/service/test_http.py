"""Bodies, answers and errors over real HTTP, with a fake engine whose answers are known."""

import asyncio
import base64
import gc
import json
import statistics
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from service.errors import ServiceError
from service.metrics import OUTCOMES, PHASES
from service.server import build_server
from service.settings import Settings
from tests.service import fakes
from tests.service.pictures import encode, png, solid
from tests.service.processes import Service, running

JSON = "application/json"
RAW = "application/octet-stream"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    limits = ("--max-body-bytes", "200000", "--max-pixels", "40000", "--max-images", "40")
    with running("--variants", "fp32,fp16,int8", *limits, module="tests.service.fakes") as service:
        yield service


def post(
    service: Service, body: bytes, content_type: str, path: str = "/predict/fp32", **headers: str
) -> httpx.Response:
    return service.client.post(path, content=body, headers={"content-type": content_type, **headers})


def b64(value: int) -> str:
    return base64.b64encode(png(value)).decode()


@pytest.mark.parametrize(
    ("body", "content_type", "classes"),
    [
        (png(3), "image/png", [3]),
        (encode(solid(4), "JPEG", quality=95), "image/jpeg", [4]),
        (encode(solid(5), "WEBP", lossless=True), "image/webp", [5]),
        (png(6), "image/png; charset=binary", [6]),
        (json.dumps({"image": b64(7)}).encode(), JSON, [7]),
        (json.dumps({"images": [b64(7), b64(8)]}).encode(), JSON, [7, 8]),
        (np.stack([solid(1), solid(2), solid(9)]).tobytes(), RAW, [1, 2, 9]),
    ],
)
def test_every_kind_of_body_is_answered(service: Service, body: bytes, content_type: str, classes: list[int]) -> None:
    """PNG, JPEG, WebP, JSON with one and several images, raw pixels."""
    answer = post(service, body, content_type)
    assert answer.status_code == 200
    assert [prediction["class_index"] for prediction in answer.json()["predictions"]] == classes


def test_multipart_takes_several_images(service: Service) -> None:
    """Each part named `image` is one image, answered in order."""
    files = [("image", (f"{value}.png", png(value), "image/png")) for value in (1, 2)]
    answer = service.client.post("/predict/int8", files=files)
    assert [prediction["class_index"] for prediction in answer.json()["predictions"]] == [1, 2]


def test_more_images_than_a_batch_are_split(service: Service) -> None:
    """40 images with max_batch_size 32 come back in order, from batches of at most 32."""
    pixels = np.stack([solid(value) for value in range(40)])
    answer = post(service, pixels.tobytes(), RAW).json()
    assert [prediction["class_index"] for prediction in answer["predictions"]] == [value % 10 for value in range(40)]
    assert answer["batch_size"] == 32


def test_an_answer_holds_what_design_promises(service: Service) -> None:
    """Variant, device, prediction, probabilities that sum to one, timing, memory, request id, Server-Timing."""
    answer = post(service, png(3), "image/png", "/predict/int8?top_k=10&logits=true", **{"x-request-id": "abc-1"})
    document = answer.json()
    assert (document["variant"], document["device"], document["batch_size"]) == ("int8", "cpu", 1)
    (prediction,) = document["predictions"]
    assert prediction["label"] == "cat"
    assert prediction["logits"] == [0, 0, 0, 5, 0, 0, 0, 0, 0, 0]
    assert sum(candidate["probability"] for candidate in prediction["top_k"]) == pytest.approx(1)
    assert document["timing"]["inference_seconds"] == 0.001
    assert document["timing"]["total_seconds"] > document["timing"]["queue_seconds"] > 0
    assert document["memory"] == {"peak_bytes": 1000, "kind": "activation_peak"}
    assert document["request_id"] == answer.headers["x-request-id"] == "abc-1"
    assert "inference;dur=1.000" in answer.headers["server-timing"]


def told(answer: httpx.Response) -> dict[str, float]:
    """Return the Server-Timing header as phase -> seconds."""
    parts = (part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    return {phase: float(milliseconds) / 1000 for phase, milliseconds in parts}


def test_server_timing_is_what_the_metrics_observe(service: Service) -> None:
    """Over ten answers, each phase in the headers (rounded to 1 us) adds up to what its histogram grew by."""

    def observed() -> dict[str, float]:
        name = "precision_phase_duration_seconds_sum"
        return {phase: service.sample(name, variant="int8", phase=phase) for phase in PHASES}

    before = observed()
    answers = [post(service, png(3), "image/png", "/predict/int8") for _ in range(10)]
    after = observed()
    for phase in PHASES:
        assert sum(told(answer)[phase] for answer in answers) == pytest.approx(after[phase] - before[phase], abs=1e-5)
    timing = answers[0].json()["timing"]
    shown = {name.removesuffix("_seconds"): seconds for name, seconds in timing.items()}
    assert {phase: told(answers[0])[phase] for phase in set(shown) & set(PHASES)} == pytest.approx(
        {phase: shown[phase] for phase in set(shown) & set(PHASES)}, abs=1e-6
    )


def test_phases_explain_the_time(service: Service) -> None:
    """At the median `other` is less than 5 % of a request's time."""
    answers = [told(post(service, png(3), "image/png", "/predict/int8")) for _ in range(30)]
    assert statistics.median(answer["other"] / sum(answer.values()) for answer in answers) < 0.05


def test_an_error_tells_its_time_too(service: Service) -> None:
    """Server-Timing has the phases that the request reached, and the total."""
    assert list(told(post(service, b"no image", "image/png"))) == ["total"]
    failed = told(post(service, png(fakes.RAISE), "image/png"))
    assert list(failed) == ["receive", "decode", "total"]
    assert failed["total"] > failed["receive"] + failed["decode"]


@pytest.mark.parametrize(
    ("path", "body", "content_type", "status", "word"),
    [
        ("/predict/fp32", b"not an image", "image/png", 400, "not_an_image"),
        ("/predict/fp32", png(1)[:-40], "image/png", 400, "not_an_image"),
        ("/predict/fp32", b"", "image/png", 400, "not_an_image"),
        ("/predict/fp32", encode(solid(1), "GIF"), "image/png", 400, "not_an_image"),
        ("/predict/fp32", b"{", JSON, 400, "malformed"),
        ("/predict/fp32", b'{"picture": "x"}', JSON, 400, "malformed"),
        ("/predict/fp32", b'{"image": "*"}', JSON, 400, "malformed"),
        ("/predict/fp32", b'{"image": "aaaa", "images": ["aaaa"]}', JSON, 400, "malformed"),
        ("/predict/fp32", b'{"images": []}', JSON, 400, "malformed"),
        ("/predict/fp32", b"x", "multipart/form-data", 400, "malformed"),
        ("/predict/fp32", b"--b\r\nContent-Disposition: form", "multipart/form-data; boundary=b", 422, "unacceptable"),
        ("/predict/fp64", png(1), "image/png", 404, "unknown_variant"),
        ("/predict/fp32", bytes(200_001), RAW, 413, "too_large"),
        ("/predict/fp32", b"x", "text/plain", 415, "unsupported_type"),
        ("/predict/fp32", bytes(100), RAW, 422, "unacceptable"),
        ("/predict/fp32", b"", RAW, 422, "unacceptable"),
        ("/predict/fp32", bytes(41 * 3072), RAW, 422, "unacceptable"),
        ("/predict/fp32", encode(solid(1, 201)), "image/png", 422, "unacceptable"),
        ("/predict/fp32?top_k=11", png(1), "image/png", 422, "unacceptable"),
        ("/predict/fp16", png(1), "image/png", 503, "unavailable"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_every_error_is_a_problem_and_counted(
    service: Service, path: str, body: bytes, content_type: str, status: int, word: str
) -> None:
    """The status and word of the error table, a detail in words, exactly one count under that word."""
    variant = {"fp32": "fp32", "fp16": "fp16", "fp64": "unknown"}[path.partition("?")[0].rsplit("/")[-1]]
    before = service.outcomes(variant)
    answer = post(service, body, content_type, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"].endswith(f":{word}")
    assert len(problem["detail"]) > 10
    assert problem["request_id"] == answer.headers["x-request-id"]
    after = service.outcomes(variant)
    assert {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)} == {word: 1}


def test_a_chunked_body_is_limited_too(service: Service) -> None:
    """Without a Content-Length the limit holds while the body arrives."""

    def chunks() -> Iterator[bytes]:
        for _ in range(300):
            yield bytes(1000)

    answer = service.client.post("/predict/fp32", content=chunks(), headers={"content-type": RAW})
    assert answer.status_code == 413


def test_one_bad_image_names_itself(service: Service) -> None:
    """The error names the image, of several, that could not be read."""
    body = json.dumps({"images": [b64(1), base64.b64encode(b"junk").decode()]}).encode()
    assert "image 1" in post(service, body, JSON).json()["detail"]


def test_compare_answers_with_every_variant(service: Service) -> None:
    """Ready variants side by side with their agreement; the unavailable one with its reason."""
    document = post(service, png(3), "image/png", "/compare").json()
    assert document["variants"]["int8"]["agrees"] == [True]
    assert document["variants"]["int8"]["max_logit_difference"] == [0]
    assert "logits" not in document["variants"]["int8"]["answer"]["predictions"][0]
    assert "CUDA" in document["variants"]["fp16"]["error"]


def test_a_comparison_counts_once_whatever_happens_to_it(service: Service) -> None:
    """It counts as `ok` or as a word of the error table, mistakes in the query included, and as no prediction."""

    def compared() -> dict[str, float]:
        return {word: service.sample("precision_compare_requests_total", outcome=word) for word in OUTCOMES}

    before, predicted = compared(), service.outcomes("fp32")
    answers = [
        post(service, png(3), "image/png", "/compare", **{"x-request-id": "abc-2"}),
        post(service, b"no image", "image/png", "/compare"),
        post(service, png(3), "image/png", "/compare?top_k=11"),
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 422]
    assert answers[0].headers["x-request-id"] == answers[0].json()["request_id"] == "abc-2"
    grown = {word: count - before[word] for word, count in compared().items() if count > before[word]}
    assert grown == {"ok": 1, "not_an_image": 1, "unacceptable": 1}
    assert service.outcomes("fp32") == predicted


def test_compare_refuses_a_deadline_that_cannot_be_read(service: Service) -> None:
    """The whole comparison is `malformed`, not each variant's answer."""
    answer = post(service, png(3), "image/png", "/compare", **{"x-request-timeout": "soon"})
    assert answer.status_code == 400
    assert answer.json()["type"].endswith(":malformed")


def test_variants_tell_their_state(service: Service) -> None:
    """fp16 without a GPU is unavailable with a reason; the others are ready."""
    cards = {card["name"]: card for card in service.client.get("/variants").json()["variants"]}
    assert {name: card["state"] for name, card in cards.items()} == {
        "fp32": "ready",
        "fp16": "unavailable",
        "int8": "ready",
    }
    assert "CUDA" in cards["fp16"]["reason"]
    assert cards["int8"]["reference"] in cards | {"fp32-cpu": None}


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/docs", "/openapi.json", "/metrics"])
def test_the_other_routes_answer(service: Service, path: str) -> None:
    """An unavailable variant does not make the service unready."""
    assert service.client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/health/live", "/metrics", "/variants", "/v2/models/resnet18-fp32"])
def test_head_is_answered_as_get(service: Service, path: str) -> None:
    """HEAD gets the status and the headers of GET, and no body."""
    head, get = service.client.head(path), service.client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/predict/fp32", 405)])
def test_unknown_paths_and_methods_are_problems(service: Service, method: str, path: str, status: int) -> None:
    """LitServe's and Starlette's own errors have the same shape."""
    answer = service.client.request(method, path)
    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_openapi_names_every_body_and_error(service: Service) -> None:
    """The description of /predict has all six content types and every status of the error table."""
    operation = service.client.get("/openapi.json").json()["paths"]["/predict/{variant}"]["post"]
    assert len(operation["requestBody"]["content"]) == 6
    assert {"200", "400", "404", "413", "415", "422", "500", "503", "504"} <= set(operation["responses"])


def test_a_refusal_is_let_go_at_once() -> None:
    """The error of a request, whose traceback holds the request, does not wait for the garbage collector."""
    app = build_server(Settings(variants=("fp32",))).front

    def alive() -> int:
        return sum(type(each) is ServiceError for each in gc.get_objects())

    async def left() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            gc.collect()
            gc.disable()
            before = alive()  # those that other tests keep
            assert (await client.post("/predict/fp64", content=png(1))).status_code == 404
            return alive() - before

    try:
        assert asyncio.run(left()) == 0
    finally:
        gc.enable()


def test_the_page_can_be_switched_off() -> None:
    """--no-page: / leads to /docs, its files are gone."""
    app = build_server(Settings(variants=("fp32",), no_page=True)).front

    async def get(*paths: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return [await client.get(path) for path in paths]

    root, script = asyncio.run(get("/", "/page/page.js"))
    assert root.headers["location"] == "/docs"
    assert script.status_code == 404
