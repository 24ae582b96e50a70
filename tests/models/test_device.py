"""Where variants run, on machines that the tests invent."""

import pytest
import torch

from models.engines import device
from models.engines.device import Gpu
from models.variants import VARIANTS, VariantUnavailable

H200 = Gpu(0, "GPU-0", "NVIDIA H200", (9, 0), 150_000_000_000)
V100 = Gpu(0, "GPU-0", "Tesla V100-SXM2-16GB", (7, 0), 16_000_000_000)
P100 = Gpu(0, "GPU-0", "Tesla P100-PCIE-16GB", (6, 0), 16_000_000_000)
GTX_1660 = Gpu(0, "GPU-0", "NVIDIA GeForce GTX 1660 Ti", (7, 5), 6_000_000_000)
T4 = Gpu(0, "GPU-0", "Tesla T4", (7, 5), 16_000_000_000)
SECOND = Gpu(1, "GPU-1", "NVIDIA H200", (9, 0), 150_000_000_000)


@pytest.mark.parametrize(
    ("name", "asked", "present", "expected"),
    [
        ("fp32", None, (), None),
        ("fp32", None, (H200,), H200),
        ("fp32", "cpu", (H200,), None),
        ("fp32", "cuda:1", (H200, SECOND), SECOND),
        ("fp32-cpu", None, (H200,), None),
        ("int8", None, (H200,), None),
        ("fp16", None, (H200,), H200),
        ("fp16", "cuda", (P100,), P100),
        ("fp16", "cpu", (), None),
        ("bf16", "cpu", (), None),
        ("fp32-tf32", None, (H200,), H200),
    ],
)
def test_a_variant_runs_where_its_row_or_the_caller_says(
    name: str, asked: str | None, present: tuple[Gpu, ...], expected: Gpu | None
) -> None:
    """A variant runs on a GPU if its row wants one or one is present, and on the CPU if row or caller say so."""
    assert device.choose(VARIANTS[name], asked, present) == expected


@pytest.mark.parametrize(
    ("name", "asked", "present", "reason"),
    [
        ("fp16", None, (), "fp16 needs a CUDA GPU and this machine has none"),
        ("fp32", "cuda", (), "fp32 needs a CUDA GPU and this machine has none"),
        ("int8", "cuda", (H200,), "int8 runs on the CPU only"),
        ("fp16", "cuda:1", (H200,), "this machine has 1 GPU"),
        ("fp32-tf32", "cpu", (H200,), "fp32-tf32 needs a CUDA GPU: no CPU computes in tf32"),
        ("fp32-tf32", None, (V100,), r"needs compute capability 8\.0; Tesla V100-SXM2-16GB is sm_70"),
        ("bf16", None, (T4,), r"needs compute capability 8\.0; Tesla T4 is sm_75"),
    ],
)
def test_a_variant_that_cannot_run_says_why(
    name: str, asked: str | None, present: tuple[Gpu, ...], reason: str
) -> None:
    """VariantUnavailable names the missing device or capability."""
    with pytest.raises(VariantUnavailable, match=reason):
        device.choose(VARIANTS[name], asked, present)


@pytest.mark.parametrize(("gpu", "has"), [(H200, True), (V100, True), (T4, True), (P100, False), (GTX_1660, False)])
def test_tensor_cores_are_known(gpu: Gpu, has: bool) -> None:
    """Volta and later GPUs have tensor cores, except the small Turing chips."""
    assert gpu.has_tensor_cores == has


def test_fp16_without_tensor_cores_says_what_to_expect() -> None:
    """On a GPU without tensor cores fp16 runs, and a note of its info says not to expect it to be faster."""
    (note,) = device.notes(VARIANTS["fp16"], P100)
    assert "sm_60) has no tensor cores" in note
    assert device.notes(VARIANTS["fp16"], H200) == ()


def test_the_reference_says_that_tf32_is_off() -> None:
    """On a GPU the notes of fp32 and fp32-tf32 say whether TF32 is on."""
    assert device.notes(VARIANTS["fp32"], H200) == ("TF32 off",)
    assert "TF32 in the convolutions" in device.notes(VARIANTS["fp32-tf32"], H200)[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_cuda_has_no_gpus() -> None:
    """Without a driver the list of GPUs is empty."""
    assert device.gpus() == ()


@pytest.mark.gpu
def test_the_gpu_describes_itself() -> None:
    """Name, UUID, capability and memory are the driver's."""
    first = device.gpus()[0]
    assert first.name == torch.cuda.get_device_name(0)
    assert first.uuid.startswith("GPU-")
    assert first.capability == torch.cuda.get_device_capability(0)
    assert first.memory_bytes > 2**30
