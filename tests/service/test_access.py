"""API keys, public addresses and TLS."""

import asyncio
import hmac
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from service.flags import parse
from service.http.keys import Keys
from service.server import build_server
from service.settings import Settings
from tests.service.pictures import png
from tests.service.processes import Service, running, until

FAKES = "tests.service.fakes"
FIRST, SECOND, THIRD = "first-0123456789-abc", "second-0123456789-ab", "third-0123456789-abc"
PNG = {"content-type": "image/png"}
OPEN = ["/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"]
CLOSED = ["/variants", "/metrics", "/openapi.json", "/v2", "/v2/models/stats", "/nothing", "/health/live/", "//health"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file that gets the service's log."""
    return tmp_path_factory.mktemp("log") / "log"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, log: Path) -> Iterator[Service]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"# who: when\n{FIRST}\n\n{SECOND}\n")
    flags = ("--variants", "fp32", "--api-key-file", str(keys), "--log-level", "debug")
    with log.open("w") as file, running(*flags, module=FAKES, log=file, headers={"x-api-key": FIRST}) as service:
        yield service


def stranger(service: Service, method: str, path: str, **headers: str) -> httpx.Response:
    return httpx.request(method, service.url + path, headers=headers, content=png(1) if method == "POST" else None)


@pytest.mark.parametrize("path", OPEN)
def test_health_needs_no_key(service: Service, path: str) -> None:
    """Health is open to an orchestrator without a key."""
    assert stranger(service, "GET", path).status_code == 200


@pytest.mark.parametrize("path", CLOSED)
def test_everything_else_needs_a_key(service: Service, path: str) -> None:
    """Every other path, also one that does not exist, answers 401 and names the header to send."""
    answer = stranger(service, "GET", path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "X-API-Key" in answer.json().get("detail", answer.json().get("error"))


@pytest.mark.parametrize(
    "path", ["/predict/fp32", "/compare", "/v2/models/resnet18-fp32/infer", "/v2/repository/index"]
)
def test_posts_need_a_key(service: Service, path: str) -> None:
    """Every POST needs a key, also a prediction, which does not pass through FastAPI."""
    assert stranger(service, "POST", path, **PNG).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": FIRST},
        {"x-api-key": SECOND},
        {"authorization": f"Bearer {SECOND}"},
        {"authorization": f"bearer  {FIRST}"},
        {"authorization": "Bearer another-service-0123", "x-api-key": FIRST},
        {"authorization": f"Bearer {FIRST}", "x-api-key": "another-service-0123"},
    ],
)
def test_every_key_opens(service: Service, headers: dict[str, str]) -> None:
    """Each key of the file opens, in either header."""
    assert stranger(service, "POST", "/predict/fp32", **PNG, **headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": FIRST[:-1]},
        {"x-api-key": FIRST + "x"},
        {"x-api-key": ""},
        {"x-api-key": "# who: when"},
        {"authorization": f"Basic {FIRST}"},
        {"authorization": "Bearer"},
        {"x-api-key": THIRD},
    ],
)
def test_nothing_else_opens(service: Service, headers: dict[str, str]) -> None:
    """Parts of keys, empty keys, comments and other schemes do not open."""
    assert stranger(service, "GET", "/variants", **headers).status_code == 401


@pytest.mark.parametrize("path", ["/predict/fp32", "/v2/models/resnet18-fp32/infer"])
def test_a_refused_prediction_is_counted(service: Service, path: str) -> None:
    """A refused prediction counts once, as `unauthorized`."""
    before = service.outcomes("fp32").get("unauthorized", 0)
    stranger(service, "POST", path, **PNG)
    assert service.outcomes("fp32")["unauthorized"] == before + 1


def test_a_refused_comparison_is_counted(service: Service) -> None:
    """A refused comparison counts once, as `unauthorized`."""
    before = service.sample("precision_compare_requests_total", outcome="unauthorized")
    stranger(service, "POST", "/compare", **PNG)
    assert service.sample("precision_compare_requests_total", outcome="unauthorized") == before + 1


def test_metrics_can_be_opened() -> None:
    """`--open-metrics` opens /metrics and no other path to a client without a key."""
    settings = Settings(variants=("fp32",), open_metrics=True, api_keys=f"{FIRST},{THIRD}")
    transport = httpx.ASGITransport(build_server(settings).front)

    async def get(path: str, **headers: str) -> int:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return (await client.get(path, headers=headers)).status_code

    assert asyncio.run(get("/metrics")) == 200
    assert asyncio.run(get("/variants")) == 401
    assert asyncio.run(get("/variants", authorization=f"Bearer {THIRD}")) == 200


def test_every_key_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """All keys are compared, also after one that matches."""
    compared: list[bytes] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: compared.append(other) or compare(one, other))
    assert Keys((FIRST, SECOND, THIRD)).allow({"x-api-key": FIRST})
    assert len(set(compared)) == 3


def test_tritonclient_shows_a_key(service: Service) -> None:
    """tritonclient can send a key in a header."""
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as client:
        assert client.get_model_metadata("resnet18-fp32", headers={"x-api-key": SECOND})["name"] == "resnet18-fp32"
        with pytest.raises(InferenceServerException, match="API key"):
            client.get_model_metadata("resnet18-fp32")


def test_keys_are_not_logged(service: Service, log: Path) -> None:
    """No key is logged, right or wrong, even at the lowest level."""
    before = log.read_text().count("unauthorized")
    assert service.client.post("/predict/fp32", content=png(1), headers=PNG).status_code == 200
    assert stranger(service, "POST", "/predict/fp32", authorization=f"Bearer {THIRD}").status_code == 401
    text = until(lambda: (text := log.read_text()).count("unauthorized") > before and text, what="the refusal's line")
    assert [key for key in (FIRST, SECOND, THIRD) if key in text] == []


def test_keys_are_not_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the settings' text nor an error message has a key in it."""
    assert FIRST not in repr(Settings(api_keys=FIRST)) + str(Settings(api_keys=FIRST))
    monkeypatch.setenv("PRECISION_API_KEYS", "tooshort")
    with pytest.raises(SystemExit):
        parse([])
    error = capsys.readouterr().err
    assert "PRECISION_API_KEYS" in error
    assert "16 or more" in error
    assert "tooshort" not in error


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host", "0.0.0.0"], ["--allow-anonymous", "0.0.0.0 can be reached"]),  # noqa: S104 - it is refused
        (["--host", "::"], ["--allow-anonymous"]),
        (["--host", "example.org"], ["--allow-anonymous"]),
        (["--api-key-file", "/nothing/here"], ["--api-key-file", "No such file"]),
        (["--ssl-certfile", "/nothing/here"], ["--ssl-keyfile", "both or none"]),
        (["--ssl-certfile", "/nothing", "--ssl-keyfile", "/nothing"], ["--ssl-keyfile", "unencrypted key"]),
    ],
)
def test_unsafe_settings_do_not_start(flags: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A public address without a key, and a key file or certificate that cannot be read, stop the start."""
    with pytest.raises(SystemExit):
        parse(flags)
    error = capsys.readouterr().err
    assert [word for word in words if word not in error] == []


@pytest.mark.parametrize(
    "flags",
    [
        ["--host", "0.0.0.0", "--allow-anonymous"],  # noqa: S104 - the flag allows it
        ["--host", "0.0.0.0", "--api-keys", FIRST],  # noqa: S104 - guarded
        ["--host", "::1"],
        ["--host", "localhost"],
    ],
)
def test_safe_settings_start(flags: list[str]) -> None:
    """A loopback address needs no key; another one needs a key or `--allow-anonymous`."""
    assert parse(flags).host == flags[1]


def test_https(certificate: tuple[Path, Path]) -> None:
    """With a certificate the service speaks HTTPS, from TLS 1.2 on, and no HTTP."""
    chain, key = certificate
    flags = ("--variants", "fp32", "--ssl-certfile", str(chain), "--ssl-keyfile", str(key))
    with running(*flags, module=FAKES, verify=ssl.create_default_context(cafile=chain)) as service:
        assert service.url.startswith("https://")
        assert service.client.post("/predict/fp32", content=png(3), headers=PNG).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(service.url.replace("https", "http") + "/health/live")
        old = ssl.create_default_context(cafile=chain)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert httpx.get(service.url + "/health/live", verify=old).status_code == 200
