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
PRECISIONS = """
from models import checkpoint
from models.engines import openvino
from models.engines.network import fold
for hint in ("bf16", "f16"):
    print(openvino.floating(fold(checkpoint.load()[0]), 1, hint).convolution_precision)
"""
LOADS = """
from models import loading
from models.variants import VariantUnavailable
for name in ("bf16-cpu", "fp16-cpu"):
    try:
        loading.load(name, threads=1)
    except VariantUnavailable as reason:
        print(reason)
"""


def printed(code: str) -> list[str]:
    """Return the lines that a process prints in which oneDNN may use AVX2 only."""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


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


@pytest.mark.skipif("amx_bf16" in machine.flags(), reason="OpenVINO uses AMX even where oneDNN may not")
def test_openvino_may_ignore_a_hint() -> None:
    """On a CPU without the instructions the graph runs in FP32, and the read-back tells it."""
    assert printed(PRECISIONS) == ["f32", "f32"]


def test_a_cpu_that_would_simulate_a_precision_is_refused() -> None:
    """Where oneDNN may use AVX2 only, no variant in half precision is loaded."""
    cpu = f"and this one ({machine.name()}) has none that oneDNN may use: it would only simulate"
    assert printed(LOADS) == [
        f"bf16-cpu needs a CPU with avx512_bf16 or amx_bf16, {cpu} bfloat16",
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
