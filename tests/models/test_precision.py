"""The precision in which convolutions really run, on CPUs with and without instructions for half precision."""

import os
import subprocess
import sys
from typing import Any

import pytest

from common import machine
from models import checkpoint
from models.engines import openvino, precision
from models.engines.network import fold
from models.variants import VARIANTS, VariantUnavailable
from tests.models.conftest import ON_CPU, Load

RUNS = {"fp32": "f32", "fp32-cpu": "f32", "int8": "u8", "int8-dynamic": "f32", "bf16-cpu": "bf16", "fp16-cpu": "f16"}
"""The precision of the convolutions, by variant."""
IGNORED_HINT = """
from models import checkpoint, loading
from models.engines import openvino, precision
from models.engines.network import fold
from models.variants import VARIANTS, VariantUnavailable
for name, hint in {"bf16-cpu": "bf16", "fp16-cpu": "f16"}.items():
    function = openvino.floating(fold(checkpoint.load()[0]), 1, hint)
    for attempt in (
        lambda: precision.check_convolutions(VARIANTS[name], function.convolution_precision),
        lambda: loading.load(name, threads=1),
    ):
        try:
            attempt()
        except VariantUnavailable as reason:
            print(reason)
"""


@pytest.mark.parametrize("name", [name for name in RUNS if name in ON_CPU])
def test_the_info_says_in_which_precision_the_convolutions_run(name: str, load: Load) -> None:
    """Every convolution of FP32 runs in FP32, of INT8 in integers, of a native half precision in that."""
    assert load(name).info.convolution_precision == RUNS[name]


def test_openvino_runs_every_convolution_of_fp32_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the 20 convolutions is an FP32 kernel in the graph that OpenVINO compiled, on any CPU."""
    compiled: list[openvino.Compiled] = []

    class Kept(openvino.Compiled):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            compiled.append(self)

    monkeypatch.setattr(openvino, "Compiled", Kept)
    openvino.floating(fold(checkpoint.load()[0]), 1)
    nodes = [node.get_rt_info() for node in compiled[0].network.get_runtime_model().get_ops()]
    kernels = [node["primitiveType"].value for node in nodes if node["layerType"].value == "Convolution"]
    assert len(kernels) == 20
    assert all(kernel.endswith("_f32") for kernel in kernels), kernels


def test_a_cpu_that_would_simulate_a_precision_is_refused() -> None:
    """Where oneDNN may use AVX2 only, OpenVINO ignores the hint: the read-back finds it, and no variant is loaded."""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", IGNORED_HINT], env=environment, capture_output=True, text=True, check=True
    )
    cpu = f"and this one ({machine.name()}) has none that oneDNN may use: it would only simulate"
    assert done.stdout.splitlines() == [
        "bf16-cpu promises convolutions in bf16; on this CPU OpenVINO runs them in f32",
        f"bf16-cpu needs a CPU with avx512_bf16 or amx_bf16, {cpu} bfloat16",
        "fp16-cpu promises convolutions in f16; on this CPU OpenVINO runs them in f32",
        f"fp16-cpu needs a CPU with avx512_fp16 or amx_fp16 or asimdhp, {cpu} float16",
    ]


@pytest.mark.parametrize(
    ("name", "found"),
    [("fp32", "bf16"), ("fp32-cpu", "bf16+f32"), ("bf16-cpu", "f16"), ("int8", "f32+u8"), ("fp32", "")],
)
def test_another_precision_than_the_rows_is_refused(name: str, found: str) -> None:
    """One convolution in another precision, or a graph without convolutions, makes the variant unavailable."""
    with pytest.raises(VariantUnavailable, match=f"{name} promises convolutions in .* runs them in "):
        precision.check_convolutions(VARIANTS[name], found)


@pytest.mark.parametrize(("name", "found"), [("fp32", "f32"), ("int8", "u8"), ("int8", "i8+u8"), ("fp16-cpu", "f16")])
def test_the_rows_precision_is_accepted(name: str, found: str) -> None:
    """The precision of the row passes; INT8 has signed and unsigned activations."""
    precision.check_convolutions(VARIANTS[name], found)
