"""The command line of `python -m loadtest`."""

import pytest

from loadtest.flags import parse
from loadtest.targets import Target


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "host",
        "http://",
        "http://:8000",
        "http://host:80a0",
        "http://host:99999",
        "http://[::1",
        "http://host/a path",
        "http://host?x=1",
        "ftp://host",
        "old=host",
        "",
    ],
)
def test_a_malformed_url_is_a_sentence(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 2, and the last line names the URL and an example of a good one."""
    with pytest.raises(SystemExit, match="2"):
        parse(["--url", url])
    line = capsys.readouterr().err.splitlines()[-1]
    assert "expected a URL such as http://127.0.0.1:8000, got" in line
    assert line.endswith(url.removeprefix("old="))


@pytest.mark.parametrize(
    ("urls", "targets"),
    [
        (["http://a:1/"], [Target("", "http://a:1")]),
        (["http://a:1", "http://b"], [Target("a:1", "http://a:1"), Target("b", "http://b")]),
        (
            ["old=http://a/x=y", "https://[::1]:2"],
            [Target("old", "http://a/x=y"), Target("[::1]:2", "https://[::1]:2")],
        ),
    ],
)
def test_a_url_may_have_a_label(urls: list[str], targets: list[Target]) -> None:
    """Without one, the host is the label, if there are several services."""
    options, *_ = parse([flag for url in urls for flag in ("--url", url)])
    assert list(options.urls) == targets
