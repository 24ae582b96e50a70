"""An address that cannot be listened on stops the start with one line."""

import pytest

from service.serving import authority, bind
from service.settings import Settings


def test_of_two_services_that_start_together_one_gets_the_port() -> None:
    """The other is told so at once, before it loads anything."""
    with bind(Settings(port=0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(SystemExit, match=rf"127\.0\.0\.1:{port}: Address already in use; choose another --port"):
            bind(Settings(port=port))


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "nowhere.invalid"])
def test_no_port_helps_an_address_of_another_machine(host: str) -> None:
    """Nor a name that nobody knows."""
    with pytest.raises(SystemExit, match=r"choose another --host$"):
        bind(Settings(host=host, port=0, allow_anonymous=True))


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80")])
def test_an_address_is_shown_as_in_a_url(host: str, shown: str) -> None:
    """An IPv6 address in brackets."""
    assert authority(host, 80) == shown
