"""The answers of a service to `GET /variants`, and the choice of the variants to measure."""

import pytest

from loadtest.client.description import description
from loadtest.client.server import ServerError, Service, choose
from loadtest.targets import Target

DESCRIPTION = description(
    {
        "variants": [
            {"name": "fp32", "state": "ready", "device": "cpu"},
            {"name": "fp16", "state": "unavailable", "reason": "fp16 needs a CUDA GPU"},
            {"name": "int8", "state": "starting", "reason": None},
        ]
    }
)


def test_variants_that_are_not_ready_are_left_out_with_the_reason() -> None:
    """The reason is the one that the service states."""
    arms, excluded = choose(Target("", "http://x"), DESCRIPTION, ())
    assert [arm.name for arm in arms] == ["fp32"]
    assert [(e.name, e.reason) for e in excluded] == [
        ("fp16", "unavailable: fp16 needs a CUDA GPU"),
        ("int8", "starting"),
    ]


def test_a_variant_that_does_not_exist_is_left_out_with_a_list_of_the_others() -> None:
    """The reason lists the variants that the service offers."""
    _, excluded = choose(Target("", "http://x"), DESCRIPTION, ["fp23"])
    assert excluded[0].reason == "the service does not offer it; it offers fp32, fp16, int8"


def test_a_label_tells_two_services_apart() -> None:
    """The label is part of the arm's name."""
    arms, _ = choose(Target("new", "http://x"), DESCRIPTION, ["fp32"])
    assert arms[0].name == "fp32 @ new"


def test_no_service_is_an_error_that_says_what_to_do() -> None:
    """Nothing listens on port 1, so the error names the command that starts a service."""
    with pytest.raises(ServerError, match="start the service"):
        Service("http://127.0.0.1:1").describe()


def test_keys_that_the_load_test_does_not_know_are_kept() -> None:
    """A newer service may state more about a variant; the report keeps it as it came."""
    row = description({"variants": [{"name": "fp32", "state": "ready", "threads": 2, "max_batch_size": 32}]}).variants[
        0
    ]
    assert (row.threads, row.other) == (2, {"max_batch_size": 32})


@pytest.mark.parametrize(
    "body",
    [[], {}, {"variants": 1}, {"variants": ["fp32"]}, {"variants": [{"name": "fp32"}]}, {"variants": [{"name": 1}]}],
)
def test_another_body_is_refused(body: object) -> None:
    """A body without a list of named variants with states is no answer of this service."""
    with pytest.raises(ValueError, match="variants"):
        description(body)
