"""The table of variants: each fact of a row is there, and can be used."""

import subprocess
import sys

import pytest

from models.loading import builder
from models.variants import REFERENCE, VARIANTS, native_variants, with_references


def test_the_reference_is_fp32() -> None:
    """The first variant without a reference is the one that comparisons use."""
    assert REFERENCE == "fp32"


def test_references_exist() -> None:
    """Every reference is a variant that has no reference itself."""
    assert {VARIANTS[row.reference].reference for row in VARIANTS.values() if row.reference} == {None}


@pytest.mark.parametrize(
    ("name", "on_gpu"),
    [(n, g) for n, row in VARIANTS.items() for g in (False, True) if (row.gpu_builder if g else row.cpu_builder)],
)
def test_every_builder_is_a_function(name: str, on_gpu: bool) -> None:
    """The text of a row names a function that can be imported."""
    assert callable(builder(VARIANTS[name], on_gpu=on_gpu))


@pytest.mark.parametrize(
    ("names", "gpus", "expected"),
    [
        (("fp32", "fp16", "int8"), 1, ("fp32", "fp16", "int8", "fp32-cpu")),
        (("fp32", "fp16", "int8"), 0, ("fp32", "fp16", "int8")),
        (("fp32", "fp16"), 1, ("fp32", "fp16")),
        (("int8", "fp16"), 1, ("int8", "fp16")),
        (("fp32-cpu", "fp32", "int8"), 1, ("fp32-cpu", "fp32", "int8")),
        (("fp32", "int8-dynamic"), 2, ("fp32", "int8-dynamic", "fp32-cpu")),
        (("fp32", "bf16-cpu"), 0, ("fp32", "bf16-cpu")),
        (("fp32", "bf16-cpu", "fp16-cpu"), 1, ("fp32", "bf16-cpu", "fp16-cpu", "fp32-cpu")),
    ],
)
def test_a_cpu_variant_gets_a_reference_on_its_own_device(
    names: tuple[str, ...], gpus: int, expected: tuple[str, ...]
) -> None:
    """Beside an fp32 that runs on a GPU the CPU's variants are compared with fp32-cpu; else nothing is added."""
    assert with_references(names, gpus) == expected


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ("avx2", ()),
        ("avx2 avx512f avx512_vnni", ()),
        ("avx512f avx512_bf16", ("bf16-cpu",)),
        ("avx512_bf16 avx512_fp16 amx_bf16", ("bf16-cpu", "fp16-cpu")),
        ("asimd asimdhp bf16", ("fp16-cpu",)),
    ],
)
def test_half_precision_belongs_to_cpus_with_its_instructions(cpu: str, expected: tuple[str, ...]) -> None:
    """A variant is native on a CPU with one of its flags; OpenVINO has no bfloat16 for ARM."""
    assert native_variants(frozenset(cpu.split())) == expected


def test_the_table_needs_no_library() -> None:
    """The table is imported by processes that must stay small, so it loads neither torch nor numpy."""
    code = "import sys, models.variants; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
