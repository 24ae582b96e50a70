"""The manifests of deploy/kubernetes/, built by kubectl: valid, true to the service's settings, and consistent."""

from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate
import pytest
import yaml

from deploy.kubernetes import generate
from service.settings import PREFIX, Settings
from tests.deploy.manifests import BUILT, KUBERNETES, Manifest, build, of_kind, pods, validate

pytestmark = pytest.mark.needs("kubectl")

DEPLOYED = [folder for folder in BUILT if folder.name != "kserve"]
built = pytest.mark.parametrize("folder", BUILT, ids=lambda path: path.name)
deployed = pytest.mark.parametrize("folder", DEPLOYED, ids=lambda path: path.name)


@built
def test_every_document_is_valid(folder: Path) -> None:
    """Kubernetes' own schemas, or those of the custom resource, accept every document, in its namespace."""
    documents = build(folder)
    assert documents
    for document in documents:
        validate(document)
        assert document["metadata"].get("namespace") == (
            None if document["kind"].startswith("Cluster") else "precision"
        )


def test_the_validation_sees_a_wrong_field() -> None:
    """A misspelt field of a Deployment, of a custom resource and of a runtime's container is an error."""
    (deployment,) = of_kind(KUBERNETES / "overlays" / "cpu", "Deployment")
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(deployment | {"spec": deployment["spec"] | {"replica": 2}})
    (scaled,) = of_kind(KUBERNETES / "overlays" / "autoscale", "ScaledObject")
    with pytest.raises(jsonschema_rs.ValidationError):
        validate(scaled | {"spec": scaled["spec"] | {"minReplicas": 2}})
    (runtime,) = of_kind(KUBERNETES / "kserve", "ClusterServingRuntime")
    (container,) = runtime["spec"]["containers"]
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(runtime | {"spec": runtime["spec"] | {"containers": [container | {"port": 8080}]}})


def test_the_namespace_is_valid() -> None:
    """The namespace that is applied first has the name that all manifests use."""
    namespace = yaml.safe_load((KUBERNETES / "namespace.yaml").read_text())
    validate(namespace)
    assert namespace["metadata"]["name"] == "precision"


def environment(folder: Path) -> list[dict[str, str]]:
    """Return the settings of each Deployment of the service, from its ConfigMap."""
    maps = of_kind(folder, "ConfigMap")
    return [one["data"] for one in maps if one["metadata"]["name"].startswith("precision-settings")]


@deployed
def test_the_settings_exist(folder: Path, tmp_path: Path) -> None:
    """Each setting of a ConfigMap is one of the service, with a value that it accepts. Keys come from the Secret."""
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef\n")
    for data in environment(folder):
        assert data["PRECISION_API_KEY_FILE"] == "/etc/precision/keys"
        values = {name.removeprefix(PREFIX).lower(): value for name, value in data.items()}
        known = {name: value for name, value in values.items() if name in Settings.model_fields}
        assert set(values) <= set(known)
        Settings.model_validate(known | {"api_key_file": keys})


def deployments(folder: Path) -> list[Manifest]:
    """Return the Deployments of the service, without those of a balancer."""
    return [one for one in of_kind(folder, "Deployment") if one["metadata"]["name"].startswith("precision")]


@deployed
def test_the_grace_period_fits_the_shutdown(folder: Path) -> None:
    """Kubernetes kills a pod 10 s or more after delay and drain have passed."""
    for deployment, data in zip(deployments(folder), environment(folder), strict=True):
        shutdown = int(data["PRECISION_SHUTDOWN_DELAY"]) + int(data["PRECISION_DRAIN_TIMEOUT"])
        assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= shutdown + 10


@built
def test_pods_have_no_privileges(folder: Path) -> None:
    """Every container has a read-only root, no way to more privileges, no capabilities and limited memory."""
    for container in (c for document in build(folder) for spec in pods(document) for c in spec["containers"]):
        context = container["securityContext"]
        assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (True, False)
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


@deployed
def test_no_variable_of_a_service_becomes_a_setting(folder: Path) -> None:
    """Kubernetes sets no PRECISION_PORT for a Service named `precision`: the service would read it as a setting."""
    assert [one["spec"]["template"]["spec"]["enableServiceLinks"] for one in deployments(folder)] == [
        False for _ in deployments(folder)
    ]


def selectors(document: Manifest) -> list[dict[str, str]]:
    """Return the labels by which a document selects pods."""
    spec = document["spec"]
    if document["kind"] == "Service":
        return [spec["selector"]]
    if document["kind"] == "Deployment":
        template = spec["template"]["spec"]
        spread = [one["labelSelector"]["matchLabels"] for one in template.get("topologySpreadConstraints", [])]
        return [spec["selector"]["matchLabels"], *spread]
    return [spec[name]["matchLabels"] for name in ("selector", "podSelector") if name in spec]


@deployed
def test_selectors_select_the_pods_of_one_deployment(folder: Path) -> None:
    """Services, budgets, policies and spread constraints each select the pods of one Deployment, PodMonitors of all."""
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in of_kind(folder, "Deployment")]
    kinds = {"Service", "Deployment", "PodDisruptionBudget", "NetworkPolicy"}
    for selector in (s for document in build(folder) if document["kind"] in kinds for s in selectors(document)):
        assert sum(selector.items() <= one.items() for one in labels) == 1
    for monitor in of_kind(folder, "PodMonitor"):
        assert all(selectors(monitor)[0].items() <= one.items() for one in labels)


def test_probes_ask_the_right_routes() -> None:
    """A pod is alive while its process answers, and gets traffic while all its variants are ready."""
    (deployment,) = deployments(KUBERNETES / "overlays" / "cpu")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/health/live", "liveness": "/health/live", "readiness": "/health/ready"}


@pytest.mark.parametrize(
    ("overlay", "variants", "device"),
    [
        ("cpu", "int8", {}),
        ("gpu", "fp16", {"nvidia.com/gpu": "1"}),
        ("gpu-mig", "fp16", {"nvidia.com/mig-1g.10gb": "1"}),
    ],
)
def test_overlays_choose_variant_and_device(overlay: str, variants: str, device: dict[str, Any]) -> None:
    """The CPU serves int8; a whole GPU, or one slice of it and no whole one, serves fp16."""
    (settings,) = environment(KUBERNETES / "overlays" / overlay)
    (deployment,) = deployments(KUBERNETES / "overlays" / overlay)
    limits = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert settings["PRECISION_VARIANTS"] == variants
    assert {name: value for name, value in limits.items() if name.startswith("nvidia")} == device


@pytest.mark.parametrize(
    ("overlay", "kind"), [("autoscale", "ScaledObject"), ("autoscale-cpu", "HorizontalPodAutoscaler")]
)
def test_an_autoscaler_has_the_replicas_to_itself(overlay: str, kind: str) -> None:
    """The Deployment that is scaled names no number of replicas, which each `kubectl apply` would restore."""
    (scaler,) = of_kind(KUBERNETES / "overlays" / overlay, kind)
    (deployment,) = deployments(KUBERNETES / "overlays" / overlay)
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]


@pytest.mark.parametrize("path", generate.WRITTEN, ids=lambda path: path.name)
def test_generated_manifests_are_current(path: Path) -> None:
    """Rules, alerts and dashboard are those of deploy/prometheus/ and deploy/grafana/; `make manifests` writes them."""
    assert path.read_text() == generate.WRITTEN[path]()


def test_the_rule_has_every_group() -> None:
    """The PrometheusRule, once parsed, has the groups of rules.yml and of alerts.yml."""
    (rule,) = of_kind(KUBERNETES / "overlays" / "monitoring", "PrometheusRule")
    files = [KUBERNETES.parent / "prometheus" / name for name in ("rules.yml", "alerts.yml")]
    assert rule["spec"]["groups"] == [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
