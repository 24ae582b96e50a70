"""The house stands as planned: who may import whom, what is pinned, and that the README's commands exist."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("common", "models", "service", "loadtest")
MAY_IMPORT = {
    "common": {"common"},
    "models": {"common", "models"},
    "service": {"common", "models", "service"},
    "loadtest": {"common", "loadtest"},
}
TORCH = "brings torch, which most processes do without"
EXTRA = "OpenTelemetry's SDK is an extra"
PATCH = "gevent patches the sockets before anything else is imported"
AHEAD = "other processes start while this one imports it"
LATE_IMPORTS = {
    ("loadtest.cli", "loadtest.report.build"): PATCH,
    ("loadtest.cli", "loadtest.report.publish"): PATCH,
    ("loadtest.cli", "loadtest.run"): PATCH,
    ("models.cifar10", "torchvision.datasets.utils"): TORCH,
    ("models.engines.building", "torch"): TORCH,
    ("models.engines.device", "torch"): TORCH,
    ("models.engines.gpu_layers", "torch._dynamo"): "seconds that the other ways to run the layers do without",
    ("service.__main__", "service.serving"): AHEAD,
    ("service.__main__", "service.flags"): AHEAD,
    ("service.serving", "service.server"): AHEAD,
    ("service.serving", "service.tracing"): AHEAD,
    ("service.tracing", "opentelemetry"): EXTRA,
    ("service.tracing", "opentelemetry.exporter.otlp.proto.http.trace_exporter"): EXTRA,
    ("service.tracing", "opentelemetry.sdk.resources"): EXTRA,
    ("service.tracing", "opentelemetry.sdk.trace"): EXTRA,
    ("service.tracing", "opentelemetry.sdk.trace.export"): EXTRA,
    ("service.workers.api", "models.loading"): "brings OpenVINO, and the HTTP process runs no engine",
    ("service.workers.api", "torch"): TORCH,
}
"""Module and name of each import inside a function, with its reason."""


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(package: str, library: str) -> set[str]:
    """The modules of a package that import a library."""
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / package).rglob("*.py")
        if any(name.split(".")[0] == library for name in imported(path))
    }


@pytest.mark.parametrize(
    ("package", "other"), [(a, b) for a in PACKAGES for b in PACKAGES if b not in MAY_IMPORT[a]], ids="->".join
)
def test_dependencies_point_one_way(package: str, other: str) -> None:
    """service knows models; nothing else knows another package."""
    assert importers(package, other) == set()


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def test_no_import_circles() -> None:
    """Modules can be put in an order in which each imports only earlier ones, imports inside functions included."""
    known = modules()
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for name, path in known.items():
        targets = {target if target in known else target.rpartition(".")[0] for target in imported(path)}
        sorter.add(name, *(targets & known.keys() - {name}))
    sorter.prepare()


def late_imports(path: Path) -> Iterator[str]:
    """The names that a module imports inside functions, in the order of the text."""
    functions = [
        n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    for node in (inner for function in functions for inner in ast.walk(function)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def test_imports_inside_functions_are_listed() -> None:
    """An import inside a function hides a dependency: only those with a reason are there."""
    found = {(name, library) for name, path in modules().items() for library in late_imports(path)}
    assert found == set(LATE_IMPORTS)


@pytest.mark.parametrize("package", [*PACKAGES, "deploy"])
@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_nothing_imports_tests(package: str, folder: str) -> None:
    """What is installed needs nothing that is not."""
    assert importers(package, folder) == set()


def test_metrics_are_defined_in_one_place() -> None:
    """prometheus_client is imported where metrics are registered, and where their histograms are, nowhere else."""
    assert importers("service", "prometheus_client") == {"service/histograms.py", "service/metrics.py"}


def test_traces_are_made_in_one_module() -> None:
    """OpenTelemetry is an extra: whatever needs it is in one place, and imported when it is asked for."""
    assert importers("service", "opentelemetry") == {"service/tracing.py"}


def test_one_module_prepares_images() -> None:
    """No picture is turned, converted or resized on its way to the network but in models/preprocess.py."""
    changing = {"convert", "resize", "fit", "crop", "thumbnail", "exif_transpose"}
    found = {
        str(path.relative_to(ROOT))
        for package in ("models", "service")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in changing
    }
    # A sheet shows pictures to people; a graph has an operation of that name.
    assert found - {"models/evaluation/sheet.py", "models/engines/openvino.py"} == {"models/preprocess.py"}


def test_models_know_no_metrics() -> None:
    """models returns what a run cost, it does not publish it."""
    assert importers("models", "prometheus_client") == set()


def test_load_test_only_parses_metrics() -> None:
    """loadtest reads an exposition and registers nothing."""
    names = {name for path in (ROOT / "loadtest").rglob("*.py") for name in imported(path)}
    assert {name for name in names if name.startswith("prometheus_client")} <= {
        "prometheus_client.parser.text_string_to_metric_families"
    }


@pytest.mark.parametrize("module", ["service.serving", "service.server", "loadtest.__main__", "models.variants"])
def test_process_without_torch(module: str) -> None:
    """torch, half a gigabyte, is imported by the workers only, not by the HTTP process or the client."""
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=False).returncode == 0


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    matches = [re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s;]+)( ;.+?)?( +#.*)?", line) for line in lines]
    assert all(matches), "a line of constraints.txt is not `name==version`"
    return {normalised(match[1]): match[2] for match in matches if match}


def requirements(*extras: str) -> list[str]:
    """What pyproject.toml asks for: always, and for these extras (all of them if none is named)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in extras or optional for line in optional[extra])]
    own = [line for line in lines if line.startswith(f"{project['name']}[")]
    included = [other for line in own for other in requirements(*line[line.index("[") + 1 : -1].split(","))]
    return [line for line in dict.fromkeys([*lines, *included]) if line not in own]


def distribution(requirement: str) -> str:
    return normalised(re.split(r"[<>=!~\[ ]", requirement)[0])


@pytest.mark.parametrize(
    ("package", "extras"),
    [("common", []), ("models", ["service", "study"]), ("service", ["service", "tracing"]), ("loadtest", ["loadtest"])],
)
def test_imports_are_declared(package: str, extras: list[str]) -> None:
    """What a package imports, its extras install by name, and not by the grace of something else that needs it."""
    declared = {distribution(line) for line in requirements(*extras)}
    names = {name.split(".")[0] for path in (ROOT / package).rglob("*.py") for name in imported(path)}
    foreign = names - set(sys.stdlib_module_names) - set(PACKAGES)
    providers = packages_distributions()
    assert {name for name in foreign if declared.isdisjoint(map(normalised, providers.get(name, [])))} == set()


@pytest.mark.parametrize("requirement", sorted(set(requirements())))
def test_dependency_is_pinned(requirement: str) -> None:
    """Whatever pyproject.toml asks for has its exact version in constraints.txt."""
    assert distribution(requirement) in pins()


def hashed(image: str) -> dict[str, tuple[str, int]]:
    """Name -> version and number of hashes in the requirements of an image."""
    text = (ROOT / "deploy" / image).read_text()
    entries = re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)(.*?)(?=^[a-z]|\Z)", text, re.MULTILINE | re.DOTALL)
    return {normalised(name): (version, rest.count("--hash=sha256:")) for name, version, rest in entries}


@pytest.mark.parametrize(("image", "extra"), [("requirements.txt", "service"), ("requirements-cpu.txt", "cpu")])
def test_an_image_installs_by_hash_what_is_tested(image: str, extra: str) -> None:
    """Every requirement of an image has hashes and the version that constraints.txt has; none is missing."""
    found = hashed(image)
    assert all(count > 0 for _, count in found.values())
    assert {name: version for name, (version, _) in found.items() if pins().get(name) != version} == {}
    assert {distribution(line) for line in requirements(extra, "tracing", "build")} <= set(found)


def test_the_image_for_cpus_has_no_torch() -> None:
    """Neither torch nor a library of CUDA is among its requirements; the driver's interface in Python is."""
    names = set(hashed("requirements-cpu.txt"))
    assert {name for name in names if name.startswith(("torch", "triton", "cuda", "nvidia"))} == {"nvidia-ml-py"}


def test_litserve_is_pinned_twice() -> None:
    """The service overrides private methods of LitServe, so its requirements, too, accept one version only."""
    assert f"litserve=={pins()['litserve']}" in requirements()


def readme_commands() -> str:
    blocks = re.findall(
        r"^```(?:bash|sh|console)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    return "\n".join(blocks)


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_readme_make_targets_exist() -> None:
    """Every `make TARGET` in the README's commands is in the Makefile."""
    used = set(re.findall(r"\bmake ([a-z-]+)", readme_commands()))
    assert used
    assert used <= makefile_targets()


def test_readme_modules_exist() -> None:
    """Every `python -m MODULE` in the README's commands can be run."""
    used = set(re.findall(r"\bpython3? -m ([a-z_.0-9]+)", readme_commands())) - {"venv", "pip"}
    assert {name for name in used if find_spec(name) is None} == set()


def test_make_help_lists_every_target() -> None:
    """Bare `make` says what there is."""
    out = subprocess.run(["make", "-s"], cwd=ROOT, check=True, capture_output=True, text=True).stdout  # noqa: S607
    assert set(re.findall(r"^make ([a-z-]+)", out, re.MULTILINE)) == makefile_targets()
