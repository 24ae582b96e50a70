"""From a row of VARIANTS to a loaded engine. Imports no torch, unless the engine runs on it."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from common import machine
from models import files, needs
from models.card import AS_IT_SAYS, Preparation
from models.engines.base import Engine
from models.engines.building import Order
from models.engines.device import choose, gpus
from models.variants import DEFAULT_GPU_BACKEND, VARIANTS, Variant, VariantUnavailable

Builder = Callable[[Order], Engine]


def load(
    name: str,
    *,
    device: str | None = None,
    threads: int | None = None,
    checkpoint: Path | None = None,
    preparation: Preparation = AS_IT_SAYS,
    gpu_backend: str | None = None,
) -> Engine:
    """Load a variant: weights verified, folded, quantized and placed, but not warmed up.

    Args:
        name: a key of VARIANTS.
        device: `cpu`, `cuda` or `cuda:N`; None follows the row. `cpu` also runs fp16 and bf16, slowly, for
            functional tests.
        threads: CPU threads of this process; None takes the cores available (`common.machine.available_cores`).
        checkpoint: a file or a prepared folder; None takes the environment variable CHECKPOINT, else the bundled one.
            For `int8` it may be the INT8 artifact that `python -m models.quantize --artifact` writes.
        preparation: which images the checkpoint takes, where its card does not say.
        gpu_backend: one of GPU_BACKENDS, or `auto`; None takes `auto`. It has no effect on the CPU.

    Raises:
        KeyError: there is no such variant.
        ValueError: there is no such backend.
        VariantUnavailable: the machine lacks what the variant needs.
        models.files.CheckpointError: the weights, or files derived from them, are missing, damaged or mismatched.
    """
    variant, threads = VARIANTS[name], threads or machine.available_cores()
    gpu = choose(variant, device, gpus())
    path = files.resolve(checkpoint or files.default_path())
    order = Order(variant, path, preparation, threads, gpu, gpu_backend or DEFAULT_GPU_BACKEND)
    return builder(variant, on_gpu=gpu is not None)(order)


def builder(variant: Variant, *, on_gpu: bool) -> Builder:
    """Return the function that the row names; only its module is imported, and with it the libraries that it needs.

    Raises:
        VariantUnavailable: one of those libraries is not installed.
    """
    module, _, function = ((variant.gpu_builder if on_gpu else variant.cpu_builder) or "").partition(":")
    try:
        found: Builder = getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        raise VariantUnavailable(needs.torch_or_sentence(variant.name) or str(error)) from error
    return found
