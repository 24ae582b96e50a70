"""The undocumented parts of uvicorn that are used here.

After a failure, read uvicorn's changes before you raise the pin.
"""

import inspect
import tomllib
from pathlib import Path

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_the_installed_version_is_the_one_that_is_allowed() -> None:
    """pyproject.toml allows one minor version: the one that the protocol's subclass was written against."""
    major, minor, *_ = uvicorn.__version__.split(".")
    allowed = f"uvicorn[standard]>={major}.{minor},<{major}.{int(minor) + 1}"
    assert allowed in PROJECT["optional-dependencies"]["cpu"]


def test_uvicorn_still_has_no_limit_for_slow_requests() -> None:
    """A new timeout among uvicorn's settings may make service/http/slow_clients.py unnecessary."""
    settings = inspect.signature(uvicorn.Config.__init__).parameters
    assert {name for name in settings if name.startswith("timeout_")} == {
        "timeout_keep_alive", "timeout_notify", "timeout_graceful_shutdown", "timeout_worker_healthcheck",
    }  # fmt: skip


@pytest.mark.parametrize(
    "callback",
    [
        "connection_made", "data_received", "on_message_begin", "on_headers_complete", "on_body",
        "on_message_complete", "pause_writing", "resume_writing", "connection_lost",
    ],
)  # fmt: skip
def test_an_extended_callback_is_uvicorns_own(callback: str) -> None:
    """Every callback that the subclass extends exists in uvicorn's protocol, so `super()` does uvicorn's part."""
    assert callback in vars(HttpToolsProtocol)


def test_uvicorn_does_not_use_the_callback_between_chunks() -> None:
    """The subclass defines `on_chunk_header` without calling `super()`."""
    assert not hasattr(HttpToolsProtocol, "on_chunk_header")


def test_the_keep_alive_timer_is_where_it_is_restarted() -> None:
    """uvicorn starts its timer with the same three names, after the answer, and stops it with every byte."""
    started = inspect.getsource(HttpToolsProtocol.on_response_complete)
    assert "self.timeout_keep_alive_task = self.loop.call_later(" in started
    assert "self.timeout_keep_alive, self.timeout_keep_alive_handler" in started
    assert "self._unset_keepalive_if_required()" in inspect.getsource(HttpToolsProtocol.data_received)
    assert "self.timeout_keep_alive_task = None" in inspect.getsource(HttpToolsProtocol._unset_keepalive_if_required)


def test_a_cycle_says_when_its_response_is_complete() -> None:
    """The keep-alive timer is not started while an answer is due."""
    assert "self.response_complete = False" in inspect.getsource(RequestResponseCycle.__init__)


def test_every_answer_is_started_in_one_place() -> None:
    """service/http/framing.py wraps the app there; service/http/one_write.py has the cycle write to its transport."""
    for method in (HttpToolsProtocol.on_headers_complete, HttpToolsProtocol.on_response_complete):
        assert "self._start_asgi_task(" in inspect.getsource(method)
    assert "self.transport.write(" in inspect.getsource(RequestResponseCycle.send)
    assert "await self.flow.drain()" in inspect.getsource(RequestResponseCycle.send)


def test_a_server_without_sockets_opens_none_and_is_started() -> None:
    """service/http/connections.py gives uvicorn's `startup` no socket and accepts connections itself."""
    source = inspect.getsource(uvicorn.Server.startup)
    assert "if sockets is not None:" in source
    assert "for sock in sockets:" in source
    assert source.endswith("self.started = True\n")


def test_a_protocol_is_made_as_uvicorn_makes_it() -> None:
    """service/http/connections.py makes protocols of the same arguments."""
    source = inspect.getsource(uvicorn.Server.startup)
    for argument in ("config=config", "server_state=self.server_state", "app_state=self.lifespan.state"):
        assert argument in source
    assert inspect.signature(HttpToolsProtocol.__init__).parameters["_loop"].default is None


def test_a_slice_waits_until_the_client_made_room() -> None:
    """service/http/sliced.py relies on uvicorn, which waits before each message while writing is paused."""
    source = inspect.getsource(RequestResponseCycle.send)
    assert "if self.flow.write_paused and not self.disconnected:\n            await self.flow.drain()" in source


def test_an_answer_takes_the_headers_of_the_moment_when_its_request_came() -> None:
    """service/http/connections.py adds `Connection: close` to them, and uvicorn closes the connection that says so."""
    assert "default_headers=self.server_state.default_headers" in inspect.getsource(
        HttpToolsProtocol.on_headers_complete
    )
    assert "default_headers = date_header + self.config.encoded_headers" in inspect.getsource(uvicorn.Server.on_tick)
    source = inspect.getsource(RequestResponseCycle.send)
    assert 'if b"close" in connection:\n                        self.keep_alive = False' in source


def test_the_end_of_a_connection_is_one_call() -> None:
    """service/http/slow_clients.py extends both ends of an idle connection: at the stop, and after its time."""
    assert "connection.shutdown()" in inspect.getsource(uvicorn.Server.shutdown)
    assert "self.transport.close()" in inspect.getsource(HttpToolsProtocol.timeout_keep_alive_handler)
