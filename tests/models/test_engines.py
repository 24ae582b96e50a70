"""Every variant on the CPU against the reference logits of torchvision's network, and against itself."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from models import calibration, checkpoint, files, loading
from models.card import Card
from models.engines import openvino, quantized
from models.engines.cpu import CpuEngine
from models.engines.function import ArrayFunction
from models.engines.network import fold
from models.logits import agreement, sqnr
from models.variants import VariantUnavailable
from tests.models.conftest import NATIVE, ON_CPU, Answers, Load

TWO = ("int8", "fp32-cpu")
"""The variants that OpenVINO runs whole."""

LARGEST_ERROR = {
    "fp32": 1e-4, "fp32-cpu": 1e-4, "fp16": 0.03, "fp16-cpu": 0.03, "bf16": 0.2, "bf16-cpu": 0.2, "int8-dynamic": 0.2,
}  # fmt: skip
"""Largest error of a logit, which reaches about 10. float32, float16 and bfloat16 round to 6e-8, 5e-4 and 4e-3 of a
value, in each of 21 layers."""
LEAST_AGREEMENT = {
    "fp32": 1.0, "fp32-cpu": 1.0, "fp16": 0.99, "fp16-cpu": 0.99, "bf16": 0.95, "bf16-cpu": 0.97, "int8": 0.97,
    "int8-dynamic": 0.99,
}  # fmt: skip
LEAST_INT8_SQNR = 27.0
"""In dB. 33 to 39 are usual for a good INT8 of this network; a wrong scale or a lost offset costs more than ten."""


@pytest.mark.parametrize("name", [name for name in LARGEST_ERROR if name in ON_CPU])
def test_logits_are_the_golden_ones(name: str, answers: Answers, golden: np.ndarray) -> None:
    """No logit on the sample is further from the reference than the precision explains."""
    found = answers(name)
    assert np.abs(found - golden[: len(found)]).max() < LARGEST_ERROR[name]


def test_int8_noise_is_small(answers: Answers, golden: np.ndarray) -> None:
    """INT8's noise lies at least 27 dB below its logits, and at most 60 dB, which shows that it ran in INT8."""
    assert LEAST_INT8_SQNR < (sqnr(golden, answers("int8")) or 0) < 60


def test_openvino_runs_every_convolution_in_integers(checkpoint_path: Path, card: Card) -> None:
    """Each of the 20 convolutions and the head is an integer kernel in the graph that OpenVINO compiled."""
    network = fold(checkpoint.load(checkpoint_path)[0])
    ranges = calibration.load(files.beside(checkpoint_path, ".int8.json"), card.sha256).ranges
    graph = openvino.int8_graph(quantized.quantize(network, ranges, quantized.FULL_LIMIT), 34)
    nodes = [node.get_rt_info() for node in openvino.Compiled(*graph, 1).network.get_runtime_model().get_ops()]
    kernels = [node["primitiveType"].value for node in nodes if node["layerType"].value == "Convolution"]
    assert len(kernels) == 21
    assert all(kernel.endswith("_I8") for kernel in kernels), kernels


@pytest.mark.parametrize("name", ON_CPU)
def test_top1_agrees(name: str, answers: Answers, golden: np.ndarray) -> None:
    """Top-1 classes on the sample agree with the reference's."""
    found = answers(name)
    assert agreement(golden[: len(found)], found) >= LEAST_AGREEMENT[name]


@pytest.mark.parametrize(("name", "tolerance"), [("int8", 0), ("int8-dynamic", 1e-4)])
def test_a_batch_gives_the_logits_of_its_images_alone(
    name: str, tolerance: float, load: Load, images: np.ndarray
) -> None:
    """INT8 logits do not depend on the other images of a batch; int8-dynamic's float convolutions may round."""
    engine = load(name)
    alone = np.concatenate([engine.run(images[i : i + 1]).logits for i in range(24)])
    assert np.abs(engine.run(images[:24]).logits - alone).max() <= tolerance


@pytest.mark.parametrize("name", ["fp32-cpu", "fp16"])
def test_a_float_batch_gives_nearly_the_logits_of_its_images_alone(name: str, load: Load, images: np.ndarray) -> None:
    """Float logits depend on the batch size only by rounding."""
    engine = load(name)
    alone = np.concatenate([engine.run(images[i : i + 1]).logits for i in range(8)])
    assert np.abs(engine.run(images[:8]).logits - alone).max() < LARGEST_ERROR[name]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("int8", (*range(1, 41), 63, 64, 65, 100, 127, 128, 200, 255)), ("fp32-cpu", (1, 2, 3, 5, 8, 17))],
)
def test_every_batch_size_works(name: str, sizes: Iterable[int], load: Load, images: np.ndarray) -> None:
    """Batches of other sizes, after one of 256, give each image the same logits."""
    engine = load(name)
    whole = engine.run(images[:256]).logits
    assert whole.shape == (256, 10)
    assert whole.dtype == np.float32
    for size in sizes:
        assert np.abs(engine.run(images[:size]).logits - whole[:size]).max() < 1e-4


@pytest.mark.parametrize("name", ON_CPU)
def test_the_same_batch_gives_the_same_logits(name: str, load: Load, images: np.ndarray) -> None:
    """Two runs of one batch give equal bits, with another batch between them."""
    engine = load(name)
    first = engine.run(images[:16]).logits
    engine.run(images[16:40])
    assert np.array_equal(first, engine.run(images[:16]).logits)


def test_int8_logits_do_not_depend_on_the_threads(load: Load, images: np.ndarray, checkpoint_path: Path) -> None:
    """Two threads give the INT8 logits of one thread to the bit, since integer sums have no order."""
    alone = load("int8").run(images[:8]).logits
    together = loading.load("int8", threads=2, checkpoint=checkpoint_path)
    assert np.array_equal(together.run(images[:8]).logits, alone)


@pytest.mark.parametrize("name", TWO)
def test_pixels_stay_as_they_were(name: str, load: Load, images: np.ndarray) -> None:
    """An engine accepts read-only pixels and does not write into them."""
    pixels = images[:4].copy()
    pixels.flags.writeable = False
    load(name).run(pixels)
    assert np.array_equal(pixels, images[:4])


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 3, 32, 32), np.float32),
        np.zeros((3, 32, 32), np.uint8),
        np.zeros((1, 32, 32, 3), np.uint8),
        np.zeros((0, 3, 32, 32), np.uint8),
        np.zeros((1, 32, 32, 3), np.uint8).transpose(0, 3, 1, 2),
        [[0]],
    ],
    ids=["float", "no batch", "channel last", "empty", "not contiguous", "a list"],
)
@pytest.mark.parametrize("name", TWO)
def test_other_input_is_refused(name: str, pixels: np.ndarray, load: Load) -> None:
    """An input other than C-contiguous [N, 3, 32, 32] uint8 with N >= 1 is a ValueError."""
    with pytest.raises(ValueError, match="pixels must"):
        load(name).run(pixels)


@pytest.mark.parametrize("name", TWO)
def test_memory_is_measured_at_warm_up(name: str, load: Load, images: np.ndarray) -> None:
    """After warm-up a run reports the activation peak of its batch size, which grows about in proportion."""
    engine = load(name)
    engine.warm_up([2, 8])
    small, large = engine.run(images[:2]), engine.run(images[:8])
    assert small.memory_kind == "activation_peak"
    # at least two activations of the first stage, uint8 or float32
    assert small.memory_bytes >= 2 * 2 * 64 * 32 * 32 * (1 if name == "int8" else 4)
    assert 3 < large.memory_bytes / small.memory_bytes < 5


@pytest.mark.parametrize("name", TWO)
def test_peaks_are_in_proportion(name: str, load: Load) -> None:
    """A batch size has the same peak, measured alone or taken in proportion from a larger size."""
    engine = load(name)
    engine.warm_up([4])
    measured = engine.activation_peaks[4]
    engine.warm_up([4, 16])
    assert engine.activation_peaks[4] == pytest.approx(measured, rel=0.1)


def test_images_that_warm_an_engine_up_run_each_shape_once(load: Load, images: np.ndarray) -> None:
    """Shapes from the largest down, then full batches, the first of which has its peak measured; nothing is left."""
    ran: list[int] = []
    measured: list[int] = []

    def forward(pixels: np.ndarray) -> np.ndarray:
        ran.append(len(pixels))
        return pixels.reshape(len(pixels), -1)[:, :10].astype(np.float32)

    def peak(run: Callable[[], object]) -> int:
        run()
        measured.append(ran[-1])
        return 100

    loaded = load("int8")
    engine = CpuEngine(loaded.variant, loaded.info, ArrayFunction(forward, 0, peak, slice=4))
    logits = engine.warm_up_on(images[:20], range(1, 5))
    engine.warm_up(range(1, 5))
    assert (logits == forward(images[:20])).all()
    assert ran[:-1] == [4, 3, 2, 1, 4, 4, 2]
    assert measured == [4]
    assert engine.activation_peaks == {1: 25, 2: 50, 3: 75, 4: 100}


def test_int8_needs_less_memory_than_fp32(load: Load, images: np.ndarray) -> None:
    """INT8's activations take less than half of the memory of FP32's."""
    peaks = []
    for name in TWO:
        load(name).warm_up([4])
        peaks.append(load(name).run(images[:4]).memory_bytes)
    assert peaks[0] < peaks[1] / 2


@pytest.mark.parametrize("name", ON_CPU)
def test_the_phases_add_up(name: str, load: Load, images: np.ndarray) -> None:
    """Each phase takes time, and on the CPU they add up to the whole call."""
    cost = load(name).run(images[:2])
    phases = (cost.copy_in_seconds, cost.inference_seconds, cost.copy_out_seconds)
    assert min(phases) > 0
    assert sum(phases) == pytest.approx(cost.wall_seconds)


@pytest.mark.parametrize("name", ON_CPU)
def test_the_info_says_what_runs(name: str, load: Load, card: Card) -> None:
    """The info names variant, checkpoint, device, versions and sizes, and can be JSON."""
    found = json.loads(json.dumps(dataclasses.asdict(load(name).info)))
    assert (found["variant"], found["checkpoint_sha256"], found["device"]) == (name, card.sha256, "cpu")
    assert found["threads"] == 1
    assert found["torch"] == ("" if found["backend"] == "openvino" else torch.__version__)
    of_openvino = f"OpenVINO {metadata.version('openvino')}"
    assert found["backend_version"] == (of_openvino if found["backend"] == "openvino" else f"torch {torch.__version__}")
    width = {"int8": 1, "float16": 2, "bfloat16": 2}.get(name if name == "int8" else found["dtype"], 4)
    assert found["parameter_bytes"] > 11_173_962 * width * 0.99


def test_int8_is_a_quarter_of_fp32(load: Load) -> None:
    """INT8's file and its resident weights, scales included, are at most 26 % of FP32's."""
    int8, fp32 = (load(name).info for name in TWO)
    assert int8.serialized_bytes <= 0.26 * fp32.serialized_bytes
    assert int8.parameter_bytes + int8.buffer_bytes <= 0.26 * fp32.parameter_bytes


@pytest.mark.parametrize("variant", ["int8", "fp32-cpu", *NATIVE])
def test_openvinos_weights_are_what_malloc_gave(variant: str) -> None:
    """The info's parameter bytes are the bytes that a process gains by loading a variant and running a batch."""
    code = (
        "import numpy as np; from models import loading, measure; import models.engines.openvino, gc; "
        "hold = []; pixels = np.zeros((1, 3, 32, 32), np.uint8); "
        "load = lambda: (hold.append(loading.load(sys.argv[1], threads=1)), hold[-1].run(pixels), gc.collect()); "
        "load(); hold.clear(); gc.collect(); found = measure.growth(load); "
        "print(found, hold[0].info.parameter_bytes)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}", variant], capture_output=True, text=True, check=True
    )
    found, told = map(int, done.stdout.split())
    assert told < found < 1.25 * told + 2e6


@pytest.mark.parametrize("name", NATIVE)
def test_half_precision_is_half_of_fp32(name: str, load: Load) -> None:
    """The file of a half precision variant is half of FP32's; its packed weights are, too, beside those in FP32."""
    half, fp32 = load(name).info, load("fp32-cpu").info
    assert 0.49 < half.serialized_bytes / fp32.serialized_bytes < 0.51
    assert half.parameter_bytes <= 0.76 * fp32.parameter_bytes


def test_nothing_is_sent(checkpoint_path: Path) -> None:
    """A variant loads and answers without opening a socket: OpenVINO's telemetry is off."""
    code = (
        "import sys, numpy as np; sys.addaudithook(lambda event, _: event.startswith('socket.') and sys.exit(event)); "
        "from models import loading; loading.load('int8', threads=1).run(np.zeros((1, 3, 32, 32), np.uint8))"
    )
    environment = os.environ | {"CHECKPOINT": str(checkpoint_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_fp16_says_that_it_needs_a_gpu() -> None:
    """Without a GPU fp16 is unavailable unless a caller asks for the CPU, and the error says why."""
    with pytest.raises(VariantUnavailable, match="fp16 needs a CUDA GPU and this machine has none"):
        loading.load("fp16")


def test_int8_refuses_a_gpu() -> None:
    """int8 runs on the CPU only, and the error says so."""
    with pytest.raises(VariantUnavailable, match="int8 runs on the CPU only"):
        loading.load("int8", device="cuda")
