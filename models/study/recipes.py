"""The table of recipes: every way to quantize the network that the study measures. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

Algorithm = Literal["none", "equalization", "adaround", "qat", "distillation", "bound"]
Weights = Literal["largest", "least-squares"]


@dataclass(frozen=True)
class Recipe:
    """One way to make the network smaller or faster."""

    name: str
    family: str
    """The heading under which the page lists it."""
    weight_bits: int
    activation_bits: int
    source: str
    """The publication or the documentation of the method."""
    variant: str = ""
    """The variant of `models.variants` that it is. Empty for a recipe that the study builds."""
    dtype: str = ""
    """`float16` or `bfloat16` for a network in half precision."""
    observer: str = "least-squares"
    """The key of `models.study.observers.OBSERVERS` that chooses the ranges of activations."""
    per_channel: bool = True
    """True if every output channel of a weight has its own scale."""
    weights: Weights = "largest"
    """How the scale of weights is chosen: from the largest weight, or by the least squared error of rounding."""
    algorithm: Algorithm = "none"
    corrected: bool = False
    """True if means and deviations of the outputs are corrected after the algorithm."""
    steps: int = 0
    """Training steps, or steps for each layer of AdaRound."""
    runs_as: str = ""
    """The variant whose graph runs it. Empty if this project has no kernel for it."""
    needs_gpu: bool = False

    @property
    def is_trained(self) -> bool:
        """Return whether it needs a training run."""
        return self.algorithm in {"qat", "distillation"}

    @property
    def edge_bits(self) -> int:
        """Return the bits of the first and the last layer's weights and of what the last layer reads.

        They stay at 8 bits in the recipes of 4 bits, as in LSQ and BRECQ.
        """
        return max(8, self.weight_bits)


JACOB = "https://arxiv.org/abs/1712.05877"
NAGEL_2019 = "https://arxiv.org/abs/1906.04721"
NAGEL_2020 = "https://arxiv.org/abs/2004.10568"
NAGEL_2021 = "https://arxiv.org/abs/2106.08295"
BANNER = "https://arxiv.org/abs/1810.05723"
LSQ = "https://arxiv.org/abs/1902.08153"
HINTON = "https://arxiv.org/abs/1503.02531"
MIGACZ = "https://www.cse.iitd.ac.in/~rijurekha/course/tensorrt.pdf"
MICIKEVICIUS = "https://arxiv.org/abs/1710.03740"
KALAMKAR = "https://arxiv.org/abs/1905.12322"
TORCH_DYNAMIC = "https://docs.pytorch.org/docs/stable/quantization.html"
NNCF_CONTROL = "https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/quantizing-models-post-training/quantizing-with-accuracy-control.html"

SOURCES = {
    "minmax": JACOB,
    "average": JACOB,
    "percentile": NAGEL_2021,
    "entropy": MIGACZ,
    "least-squares": NAGEL_2021,
}
"""The source of each observer."""
FLOAT, DYNAMIC, STATIC, REPAIRED, TRAINED = (
    "floating point", "dynamic INT8", "static INT8, by observer", "static INT8, repaired",
    "quantization-aware training",
)  # fmt: skip
FOUR, MIXED = "4 bits", "mixed precision with a bound"
TRAINING_STEPS = 700
"""Batches of 128 images, 1.8 epochs."""
ADAROUND_STEPS = 1000


def _static() -> tuple[Recipe, ...]:
    """Return a row for each observer and each granularity of weights."""
    return tuple(
        Recipe(
            f"int8-{observer}{'' if per_channel else '-tensor'}", STATIC, 8, 8, source, observer=observer,
            per_channel=per_channel, runs_as="int8",
        )
        for observer, source in SOURCES.items() for per_channel in (True, False)
    )  # fmt: skip


RECIPES = {
    row.name: row
    for row in (
        Recipe("fp32", FLOAT, 32, 32, "", variant="fp32-cpu", runs_as="fp32-cpu"),
        Recipe("bf16", FLOAT, 16, 16, KALAMKAR, dtype="bfloat16", runs_as="bf16-cpu"),
        Recipe("fp16", FLOAT, 16, 16, MICIKEVICIUS, dtype="float16", runs_as="fp16-cpu"),
        Recipe("fp16-autocast", FLOAT, 32, 16, MICIKEVICIUS, dtype="float16", needs_gpu=True),
        Recipe("int8-dynamic", DYNAMIC, 8, 32, TORCH_DYNAMIC, variant="int8-dynamic", runs_as="int8-dynamic"),
        Recipe("int8-served", STATIC, 8, 8, "", variant="int8", runs_as="int8"),
        *_static(),
        Recipe("int8-corrected", REPAIRED, 8, 8, BANNER, corrected=True, runs_as="int8"),
        Recipe("int8-tensor-equalized", REPAIRED, 8, 8, NAGEL_2019, per_channel=False, algorithm="equalization",
               runs_as="int8"),
        Recipe("int8-tensor-equalized-corrected", REPAIRED, 8, 8, NAGEL_2019, per_channel=False,
               algorithm="equalization", corrected=True, runs_as="int8"),
        Recipe("int8-adaround", REPAIRED, 8, 8, NAGEL_2020, algorithm="adaround", steps=ADAROUND_STEPS,
               runs_as="int8"),
        Recipe("int8-qat", TRAINED, 8, 8, LSQ, algorithm="qat", steps=TRAINING_STEPS, runs_as="int8"),
        Recipe("int8-distilled", TRAINED, 8, 8, HINTON, algorithm="distillation", steps=TRAINING_STEPS,
               runs_as="int8"),
        Recipe("w4a8-nearest", FOUR, 4, 8, NAGEL_2021),
        Recipe("w4a8-least-squares", FOUR, 4, 8, NAGEL_2021, weights="least-squares"),
        Recipe("w4a8-corrected", FOUR, 4, 8, BANNER, weights="least-squares", corrected=True),
        Recipe("w4a8-adaround", FOUR, 4, 8, NAGEL_2020, weights="least-squares", algorithm="adaround",
               steps=ADAROUND_STEPS),
        Recipe("w4a8-qat", FOUR, 4, 8, LSQ, weights="least-squares", algorithm="qat", steps=TRAINING_STEPS),
        Recipe("w4a4-least-squares", FOUR, 4, 4, NAGEL_2021, weights="least-squares"),
        Recipe("w4a4-distilled", FOUR, 4, 4, HINTON, weights="least-squares", algorithm="distillation",
               steps=TRAINING_STEPS),
        Recipe("int8-bound", MIXED, 8, 8, NNCF_CONTROL, algorithm="bound", runs_as="int8"),
        Recipe("w4a8-bound", MIXED, 4, 8, NNCF_CONTROL, algorithm="bound"),
    )
}  # fmt: skip
REFERENCE = "fp32"
"""The row that every other one is compared with."""
QUICK = ("fp32", "int8-minmax-tensor", "int8-corrected", "w4a8-adaround", "w4a4-distilled")
"""The rows of `--quick`: one of each kind of work."""
