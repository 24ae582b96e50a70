"""What `make kube-play-check` gives to podman; podman itself is not run here."""

import base64

import pytest

from deploy.kube_play import overlay, playable
from tests.deploy.manifests import validate


@pytest.mark.needs("kubectl")
def test_podman_gets_the_overlay_with_keys() -> None:
    """The documents are valid, the Secret has both keys, and no variable comes from it."""
    secret, *played = playable(overlay(), "localhost/image", client_key="client", metrics_key="metrics")
    for document in (secret, *played):
        validate(document)
    assert {name: base64.b64decode(value) for name, value in secret["data"].items()} == {
        "keys": b"client",
        "metrics": b"metrics",
    }
    (deployment,) = (document for document in played if document["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "localhost/image"
    assert container["env"] == [{"name": "PRECISION_API_KEYS", "value": "metrics"}]
