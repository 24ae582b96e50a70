"""The command line of `python -m loadtest`."""

import pytest

from loadtest.flags import parse
from loadtest.targets import Target, Tensor


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


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--protocol v2", "--protocol v2 needs --model"),
        ("--model net", "--model needs --protocol v2"),
        ("--protocol v3 --model net", "expected one of predict, v2, got v3"),
        ("--protocol v2 --model other=net", "--model names the service other; --url names no label"),
        ("--protocol v2 --model net --mean 0.5", "--mean and --std belong together"),
        ("--protocol v2 --model net --input images:INT8:1", "expected NAME:DATATYPE:SHAPE"),
        ("--protocol v2 --model net --mean 1,2", "expected one number or three, got 1,2"),
        ("--master host", "expected HOST:PORT such as 0.0.0.0:5557, got host"),
        ("--master host:5557", "--master needs --workers"),
        ("--rate 5 --continuous --workers 2", "--continuous plays in one process: leave out --workers"),
    ],
)
def test_flags_that_do_not_fit_together_are_a_sentence(
    flags: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 2, and the last line says what is missing or wrong."""
    with pytest.raises(SystemExit, match="2"):
        parse(["--url", "http://a", *flags.split()])
    assert reason in capsys.readouterr().err.splitlines()[-1]


def test_a_flag_is_about_one_service_or_about_all() -> None:
    """A value with a label wins over one without; a name may hold an equals sign after the label."""
    urls = ["--url", "ours=http://a", "--url", "theirs=http://b"]
    flags = "--protocol v2 --model x,y --model theirs=net --input theirs=a:b:FP32:-1,3,8,8 --mean 0.5 --std 1,1,1"
    options, *_ = parse([*urls, *flags.split()])
    ours = Target("ours", "http://a", "v2", ("x", "y"), mean=(0.5,), std=(1, 1, 1))
    theirs = Target(
        "theirs", "http://b", "v2", ("net",), Tensor("a:b", "FP32", (-1, 3, 8, 8)), mean=(0.5,), std=(1, 1, 1)
    )
    assert options.urls == (ours, theirs)
