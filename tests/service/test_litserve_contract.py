"""The parts of LitServe that are used here. After a failure, read LitServe's changes before you raise the pin."""

import inspect

import litserve

from service.server import build_server
from service.settings import Settings


def test_the_pinned_version_is_installed() -> None:
    """The installed LitServe is the version that the overrides were written against."""
    assert litserve.__version__ == "0.2.19"


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


def test_each_variant_is_a_litapi() -> None:
    """LitServe knows each variant as a LitAPI with its own path and its largest batch."""
    settings = Settings(variants=("fp32", "int8"), max_batch_size={"all": 32, "int8": 16})
    apis = list(build_server(settings).litapi_connector)
    assert all(isinstance(api, litserve.LitAPI) for api in apis)
    assert [(api.api_path, api.max_batch_size) for api in apis] == [("/predict/fp32", 32), ("/predict/int8", 16)]
