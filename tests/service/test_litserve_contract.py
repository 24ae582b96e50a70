"""What is used of LitServe's insides. A failure here means: read its changes before raising the pin."""

import inspect

import litserve
from litserve.loops import inference_worker
from litserve.loops.base import LitLoop

from service.metrics import Metrics
from service.server import build_server
from service.settings import Settings
from service.workers.api import PrecisionAPI


def test_the_pinned_version_is_installed() -> None:
    """The overrides were written against this version."""
    assert litserve.__version__ == "0.2.19"


def test_the_worker_entry_takes_what_is_given_to_it() -> None:
    """`inference_worker` is called with positional arguments in this order."""
    assert list(inspect.signature(inference_worker).parameters) == [
        "lit_api", "device", "worker_id", "request_queue", "transport", "workers_setup_status", "callback_runner",
        "restart_workers",
    ]  # fmt: skip


def test_the_loop_is_called_with_what_it_takes() -> None:
    """SocketLoop.__call__ has the parameters that inference_worker passes on."""
    source = inspect.getsource(inference_worker)
    call = source[source.rindex("loop(") :]
    names = [name.strip(" ,") for name in call.splitlines()[1:-1]]
    assert names == list(inspect.signature(LitLoop.__call__).parameters)[1:]


def test_the_overridden_methods_exist() -> None:
    """LitServer still calls what is overridden here, so nothing of LitServe's own comes back."""
    source = inspect.getsource(litserve.LitServer.register_endpoints)
    assert "_register_internal_endpoints" in source
    assert "_register_api_endpoints" in source
    assert "lifespan=self.lifespan" in inspect.getsource(litserve.LitServer.__init__)


def test_the_app_has_our_routes_and_no_gzip() -> None:
    """One route serves all variants; compressing small JSON answers costs more than it saves."""
    server = build_server(Settings(variants=("fp32",)))
    paths = set(server.app.openapi()["paths"])
    assert {"/predict/{variant}", "/compare", "/variants", "/metrics", "/health"} <= paths
    assert "/info" not in paths
    assert server.app.user_middleware == []


def test_each_variant_is_the_same_api() -> None:
    """One LitAPI class, one instance a variant."""
    metrics_names = Metrics(["fp32", "int8"]).names
    apis = [PrecisionAPI(name, Settings()) for name in metrics_names]
    assert {type(api) for api in apis} == {PrecisionAPI}
    assert [api.api_path for api in apis] == ["/predict/fp32", "/predict/int8"]
