"""The page at / and /docs, in a real browser without a network."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from models.cifar10 import CLASSES
from service.routes import page as page_routes
from tests import tools
from tests.service.calm import DOUBT
from tests.service.pictures import encode, png, solid
from tests.service.processes import ROOT, Service, running

KEY = "page-0123456789-abcdef"
SHOTS = os.environ.get("SCREENSHOTS")
"""A folder: tests leave screenshots there, for people to look at."""

pytestmark = pytest.mark.needs("chromium")


@pytest.fixture(scope="module")
def service(shared_calm: Service) -> Service:
    """Return the service with fake engines that several files share."""
    return shared_calm


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=30_000)  # a browser on a busy machine is slow to draw Swagger UI
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tools.find("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    """A tab that fails the test on any script error and on any request that leaves the service."""
    yield from opened(browser, service)


def opened(browser: Browser, service: Service) -> Iterator[Page]:
    context = browser.new_context(base_url=service.url, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
    page.on("request", lambda request: wrong.append(request.url) if not _is_local(request.url, service) else None)
    yield page
    context.close()
    assert wrong == []


def _is_local(url: str, service: Service) -> bool:
    return url.startswith((service.url, "blob:" + service.url, "data:"))


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


def test_a_sample_is_answered_by_every_variant(page: Page) -> None:
    """One click: label, probabilities, phases and memory of each ready variant; the reason of the other."""
    page.goto("/")
    page.get_by_role("button", name="ship").click()
    for name in ("fp32", "int8"):
        card = page.locator(f'[data-variant="{name}"]')
        expect(card.locator(".label")).to_be_visible()
        assert card.locator(".label").inner_text().split()[0] in CLASSES
        assert card.locator(".bars li").count() == 3
        assert "ms" in card.locator(".time").inner_text()
        assert "inference 1.00 ms" in (card.locator(".phases").get_attribute("aria-label") or "")
        assert "memory for the batch" in card.locator("dl").inner_text()
    expect(page.locator('[data-variant="fp16"] .reason')).to_contain_text("CUDA")
    shoot(page, "desktop")
    page.emulate_media(color_scheme="dark")
    shoot(page, "dark")


def test_a_suspect_accuracy_is_shown(page: Page) -> None:
    """The card of a variant with a suspect accuracy has the warning, other cards have none."""
    page.goto("/")
    expect(page.locator('[data-variant="int8"] .doubt')).to_have_text(DOUBT)
    expect(page.locator('[data-variant="fp32"] .doubt')).to_be_hidden()


def test_the_answer_is_that_of_the_service(page: Page, tmp_path: Path) -> None:
    """A chosen file is sent unchanged."""
    picture = tmp_path / "picture.png"
    picture.write_bytes(encode(solid(7, 50)))
    page.goto("/")
    page.locator("#file").set_input_files(picture)
    expect(page.locator('[data-variant="int8"] .label')).to_have_text("horse")


@pytest.mark.parametrize("where", ["#drop", "h1"])
def test_a_picture_can_be_dropped(page: Page, where: str) -> None:
    """A file can be dropped on the box and beside it."""
    page.goto("/")
    transfer = page.evaluate_handle(
        "bytes => { const t = new DataTransfer();"
        " t.items.add(new File([new Uint8Array(bytes)], 'p.png', {type: 'image/png'})); return t; }",
        list(png(3)),
    )
    page.dispatch_event(where, "drop", {"dataTransfer": transfer})
    expect(page.locator('[data-variant="fp32"] .label')).to_have_text("cat")


def test_a_picture_that_cannot_be_read_is_told(page: Page, tmp_path: Path) -> None:
    """The service's own sentence."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    page.goto("/")
    page.locator("#file").set_input_files(broken)
    expect(page.locator("#message")).to_contain_text("expected the bytes of a PNG, JPEG or WebP image")


def test_it_keeps_measuring(page: Page) -> None:
    """While the box is ticked the medians cover more and more requests."""
    page.goto("/")
    page.get_by_role("button", name="frog").click()
    page.get_by_label("Keep measuring").check()
    expect(page.locator('[data-variant="int8"] .time')).to_contain_text("median of 50", timeout=30_000)
    expect(page.locator('[data-variant="int8"] dl')).to_contain_text(re.compile(r"1\.0 . fp32"))
    page.get_by_label("Keep measuring").uncheck()


def test_a_service_that_is_gone_is_asked_now_and_then(page: Page) -> None:
    """While the box is ticked, the page asks 2 s after each attempt, not with every frame, and says what is wrong."""
    page.goto("/")
    page.get_by_role("button", name="frog").click()
    expect(page.locator('[data-variant="int8"] .label')).to_be_visible()
    page.route("**/*", lambda route: route.abort())
    page.get_by_role("button", name="ship").click()
    expect(page.locator("#message")).to_contain_text("The service does not answer")
    with page.expect_request("**/predict/**"):
        page.get_by_label("Keep measuring").check()
    began = time.monotonic()
    for _ in range(2):
        with page.expect_request("**/predict/**"):
            pass
    assert time.monotonic() - began > 3.5


def test_the_keyboard_is_enough(page: Page) -> None:
    """Tab reaches the file field and every sample, Enter chooses."""
    page.goto("/")
    expect(page.get_by_role("button", name="airplane")).to_be_visible()
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.title"))
        if reached[-1] == "cat":
            page.keyboard.press("Enter")
    assert [name for name in ("file", *CLASSES, "repeat", "key") if name not in reached] == []
    expect(page.locator('[data-variant="fp32"] .label')).to_be_visible()
    expect(page.get_by_role("button", name="cat")).to_have_attribute("aria-pressed", "true")


def test_on_a_phone_nothing_is_cut_off(page: Page) -> None:
    """390 pixels wide: no sideways scrolling."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/")
    page.get_by_role("button", name="dog").click()
    expect(page.locator('[data-variant="int8"] .label')).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(page, "phone")


def test_docs_are_drawn_without_a_network(page: Page) -> None:
    """Swagger UI shows every operation, and comes from the service itself."""
    page.goto("/docs")
    expect(page.locator(".opblock-summary-path", has_text="/predict/{variant}").first).to_be_visible()
    assert page.locator(".opblock").count() > 15
    shoot(page, "docs")


def test_the_javascript_of_the_documents_runs(page: Page, service: Service, tmp_path: Path) -> None:
    """docs/api.md's example for fetch, on a page with a file field."""
    (example,) = re.findall(r"```javascript\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)
    picture = tmp_path / "picture.png"
    picture.write_bytes(png(3))
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto("/")
    page.locator("#file").set_input_files(picture)
    page.evaluate("async () => {" + example.replace("http://127.0.0.1:8000", service.url) + "}")
    assert said[-1:] == ["cat"]


def test_with_keys_the_page_asks_for_one(browser: Browser) -> None:
    """It asks for a key, works once it has one, and passes it on to /docs and /metrics."""
    with running(
        "--variants", "fp32", "--api-keys", KEY, module="tests.service.calm", headers={"x-api-key": KEY}
    ) as service:
        for page in opened(browser, service):
            page.goto("/")
            expect(page.locator("#message")).to_contain_text("API key")
            page.get_by_label("API key").fill(KEY)
            page.get_by_label("API key").press("Enter")
            expect(page.locator('[data-variant="fp32"]')).to_be_visible()
            page.get_by_role("button", name="deer").click()
            expect(page.locator('[data-variant="fp32"] .label')).to_be_visible()
            page.goto("/docs")
            expect(page.locator(".opblock").first).to_be_visible()
            page.goto("/")
            page.get_by_role("link", name="Metrics").click()
            expect(page.locator("body")).to_contain_text("precision_requests_total")


def test_files_forbid_what_they_do_not_need(service: Service) -> None:
    """Each file has a content security policy and may not be sniffed for another type."""
    for path in page_routes.paths(with_index=True):
        headers = service.client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
