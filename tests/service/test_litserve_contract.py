"""The parts of LitServe that are used here. After a failure, read LitServe's changes before you raise the pin."""

import inspect

import litserve
from litserve.loops import inference_worker
from litserve.loops.base import LitLoop

from service.server import build_server
from service.settings import Settings
from service.workers.api import PrecisionAPI


def test_the_pinned_version_is_installed() -> None:
    """The installed LitServe is the version that the overrides were written against."""
    assert litserve.__version__ == "0.2.19"


def test_the_worker_entry_takes_what_is_given_to_it() -> None:
    """`inference_worker` takes the positional arguments in the order in which they are passed."""
    assert list(inspect.signature(inference_worker).parameters) == [
        "lit_api", "device", "worker_id", "request_queue", "transport", "workers_setup_status", "callback_runner",
        "restart_workers",
    ]  # fmt: skip


def test_the_loop_is_called_with_what_it_takes() -> None:
    """`inference_worker` passes the loop exactly the parameters of LitLoop.__call__."""
    source = inspect.getsource(inference_worker)
    call = source[source.rindex("loop(") :]
    names = [name.strip(" ,") for name in call.splitlines()[1:-1]]
    assert names == list(inspect.signature(LitLoop.__call__).parameters)[1:]


def test_the_overridden_methods_exist() -> None:
    """LitServer still calls the overridden methods, so none of LitServe's own routes comes back."""
    source = inspect.getsource(litserve.LitServer.register_endpoints)
    assert "_register_internal_endpoints" in source
    assert "_register_api_endpoints" in source
    assert "lifespan=self.lifespan" in inspect.getsource(litserve.LitServer.__init__)


def test_the_app_has_our_routes_and_no_gzip() -> None:
    """The app has this service's routes and not LitServe's, and no middleware compresses the small answers."""
    server = build_server(Settings(variants=("fp32",)))
    paths = set(server.app.openapi()["paths"])
    assert {"/predict/{variant}", "/compare", "/variants", "/metrics", "/health"} <= paths
    assert "/info" not in paths
    assert server.app.user_middleware == []


def test_each_variant_is_the_same_api() -> None:
    """All variants have the same LitAPI class, and each has its own path."""
    apis = [PrecisionAPI(name, Settings()) for name in ("fp32", "int8")]
    assert {type(api) for api in apis} == {PrecisionAPI}
    assert [api.api_path for api in apis] == ["/predict/fp32", "/predict/int8"]
