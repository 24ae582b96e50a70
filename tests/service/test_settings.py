"""Flags, environment variables, and mistakes in them."""

import pytest

from service.flags import parse
from service.settings import Settings, for_variant


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag wins over the environment variable, which wins over the default."""
    monkeypatch.setenv("PRECISION_PORT", "9001")
    monkeypatch.setenv("PRECISION_VARIANTS", "int8, fp32")
    assert parse([]).port == 9001
    assert parse(["--port", "9002"]).port == 9002
    assert parse([]).variants == ("int8", "fp32")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port", "x"], ["--port", "PRECISION_PORT", "'x'"]),
        (["--variants", "fp64"], ["--variants", "fp32", "int8", "'fp64'"]),
        (["--variants", "fp32,fp32"], ["--variants", "distinct"]),
        (["--shadow-share", "2"], ["--shadow-share", "less than or equal to 1"]),
        (["--max-batch-size", "0"], ["--max-batch-size", "greater than or equal to 1"]),
        (["--max-batch-size", "int4=8"], ["--max-batch-size", "NAME=NUMBER", "int8"]),
        (["--allowed-hosts", "a.example,http://b.example:80"], ["--allowed-hosts", "without scheme and port"]),
        (["--batch-timeout", "int8="], ["--batch-timeout", "valid number"]),
    ],
)
def test_a_mistake_names_flag_variable_value_and_expectation(
    flags: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The service does not start, and the error has flag, variable, value and expectation."""
    with pytest.raises(SystemExit) as stopped:
        parse(flags)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert [word for word in words if word not in error] == []


@pytest.mark.parametrize(
    ("given", "fp32", "int8"),
    [("8", 8, 8), ("int8=16", 32, 16), ("all=4, int8=16", 4, 16)],
    ids=str,
)
def test_a_setting_per_variant(given: str, fp32: int, int8: int) -> None:
    """One number is for all variants. A named variant has its own, and the others keep the default or `all`."""
    sizes = parse(["--max-batch-size", given]).max_batch_size
    assert (for_variant(sizes, "fp32"), for_variant(sizes, "int8")) == (fp32, int8)


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` has the variable of each setting."""
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    assert [name for name in Settings.model_fields if f"PRECISION_{name.upper()}" not in text] == []
