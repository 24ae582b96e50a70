"""The manifests as `kubectl kustomize` builds them, and how each kind is validated."""

import functools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate
import yaml

from tests import tools

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
SCHEMAS = Path(__file__).parent / "schemas"
OLDEST = "1.34"
"""The oldest version of Kubernetes whose schemas the manifests are held against."""
NEWEST = "1.37"
BUILT = [*sorted(path.parent for path in KUBERNETES.glob("overlays/*/kustomization.yaml")), KUBERNETES / "kserve"]
"""The folders that people apply."""

Manifest = dict[str, Any]


@functools.cache
def build(folder: Path) -> tuple[Manifest, ...]:
    """Return the documents that `kubectl kustomize` makes of a folder."""
    command = [tools.find("kubectl"), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(folder: Path, kind: str) -> list[Manifest]:
    """Return the documents of one kind."""
    return [document for document in build(folder) if document["kind"] == kind]


def schema(kind: str) -> dict[str, Any]:
    """Return the schema of a custom resource or of a Compose file."""
    return dict(json.loads((SCHEMAS / f"{kind}.json").read_text()))


def pods(document: Manifest) -> Iterator[dict[str, Any]]:
    """Return the specification of the pods that a document makes."""
    spec = document.get("spec", {})
    if document["kind"] == "Deployment":
        yield spec["template"]["spec"]
    if document["kind"] == "ClusterServingRuntime":
        yield {"containers": spec["containers"]}


def validate(document: Manifest) -> None:
    """Raise a validation error if a document has an unknown field, lacks a required one or has a wrong value."""
    if (SCHEMAS / f"{document['kind']}.json").exists():
        jsonschema_rs.validate(schema(document["kind"]), document)
        for spec in pods(document):
            validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "of-a-runtime"}, "spec": spec})
    else:
        for version in (OLDEST, NEWEST):
            kubernetes_validate.validate(document, version, strict=True)
