"""Which variants are measured."""

import pytest

from loadtest.client.server import ServerError, Service, choose

DESCRIPTION = {
    "variants": [
        {"name": "fp32", "state": "ready", "device": "cpu"},
        {"name": "fp16", "state": "unavailable", "reason": "fp16 needs a CUDA GPU"},
        {"name": "int8", "state": "starting", "reason": None},
    ]
}


def test_variants_that_are_not_ready_are_left_out_with_the_reason() -> None:
    """The reason is the service's own."""
    arms, excluded = choose(Service("http://x"), DESCRIPTION, ())
    assert [arm.name for arm in arms] == ["fp32"]
    assert [(e.name, e.reason) for e in excluded] == [
        ("fp16", "unavailable: fp16 needs a CUDA GPU"),
        ("int8", "starting"),
    ]


def test_a_variant_that_does_not_exist_is_left_out_with_those_that_do() -> None:
    """A typing error is not silent."""
    _, excluded = choose(Service("http://x"), DESCRIPTION, ["fp23"])
    assert excluded[0].reason == "the service does not offer it; it offers fp32, fp16, int8"


def test_a_label_tells_two_services_apart() -> None:
    """The same variant of two services are two arms."""
    arms, _ = choose(Service("http://x", "new"), DESCRIPTION, ["fp32"])
    assert arms[0].name == "fp32 @ new"


def test_no_service_is_an_error_that_says_what_to_do() -> None:
    """Nothing listens on port 1."""
    with pytest.raises(ServerError, match="start the service"):
        Service("http://127.0.0.1:1").describe()
