"""The arithmetic of the study: simulated rounding, integers, observers, packing. No data set is needed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models import calibrate, calibration, checkpoint, cifar10, files, loading
from models.calibrate import BINS
from models.engines import openvino, quantized
from models.engines.network import FoldedLayer, fold
from models.engines.quantized import QuantizedLayer
from models.logits import sqnr
from models.study import bound, correction, halves, observers, packing, rounding, running
from models.study.observers import Seen
from models.study.recipes import RECIPES
from models.study.simulated import Rounding, Simulated
from models.topology import Network
from models.training.augment import normalise

SERVED = RECIPES["int8-least-squares"]
W4 = RECIPES["w4a8-nearest"]
IMAGES = 4


@pytest.fixture(scope="module")
def network() -> Network[FoldedLayer]:
    """Return the bundled network in FP32."""
    return fold(*checkpoint.load(files.BUNDLED))


@pytest.fixture(scope="module")
def ranges() -> dict[str, tuple[float, float]]:
    """Return the bundled calibration's ranges."""
    _, card = checkpoint.load(files.BUNDLED)
    return calibration.load(files.beside(files.BUNDLED, calibration.SUFFIX), card.sha256).ranges


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Return a few images of the bundled sample."""
    return np.ascontiguousarray(cifar10.sample()[0][:IMAGES])


def rounded(
    network: Network[FoldedLayer], ranges: dict[str, tuple[float, float]], name: str
) -> Network[QuantizedLayer]:
    """Return the network with weights of a recipe, rounded to the nearest."""
    recipe = RECIPES[name]
    integers = {layer.spec.name: rounding.nearest(layer, network, recipe) for layer in network}
    return rounding.assembled(network, integers, ranges, recipe.activation_bits)


@pytest.fixture(scope="module")
def four_bits(network: Network[FoldedLayer], ranges: dict[str, tuple[float, float]]) -> Network[QuantizedLayer]:
    """Return the network with weights of 4 bits, 7 in first and last layer: exact on every CPU's integer kernels."""
    return quantized.narrowed(rounded(network, ranges, W4.name))


def test_the_served_recipe_is_a_row(network: Network[FoldedLayer], ranges: dict[str, tuple[float, float]]) -> None:
    """The recipe of least squares makes the integers that the variant int8 has."""
    ours, served = rounded(network, ranges, SERVED.name), quantized.quantize(network, ranges, quantized.FULL_LIMIT)
    for mine, theirs in zip(ours, served, strict=True):
        assert np.array_equal(mine.weight, theirs.weight)
        assert np.array_equal(mine.bias, theirs.bias)
        assert (mine.output_scale, mine.offset, mine.levels) == (theirs.output_scale, theirs.offset, theirs.levels)


def test_training_simulates_the_engine(
    network: Network[FoldedLayer], ranges: dict[str, tuple[float, float]], images: np.ndarray
) -> None:
    """The network in training gives the logits of OpenVINO's integer graph; what differs are ties and the padding.

    Errors of one step in some activations are 40 dB below the logits; those of quantization itself are at 20 dB.
    """
    net = Simulated(network, rounds=True).prepare(W4, ranges)
    for edge in (net.layers.stem, net.layers.head):  # without VNNI kernels would not be exact with weights of 8 bits
        edge.most = 63
        edge.log_weight_step.data += np.log(127 / 63)
    with torch.inference_mode():
        simulated = net(normalise(torch.from_numpy(images))).numpy()
    real = openvino.int8(net.network(), 1)
    assert real.convolution_precision == "u8"
    assert (sqnr(real.forward(images), simulated) or np.inf) > 40


def test_bfloat16_in_training_is_nearer_than_the_recipes(network: Network[FoldedLayer], images: np.ndarray) -> None:
    """Convolutions in bfloat16 change FP32's logits, by less than 8 bits do, which leave 35 dB; the head is in FP32."""
    x = normalise(torch.from_numpy(images))
    with torch.no_grad():
        exact, rounded = (Simulated(network, rounds=False, bfloat16=how)(x) for how in (False, True))
    assert rounded.dtype == torch.float32
    assert 38 < (sqnr(exact.numpy(), rounded.numpy()) or np.inf) < 70


def test_float_simulation_is_the_integer_graph(four_bits: Network[QuantizedLayer], images: np.ndarray) -> None:
    """The graph that runs in FP32 on rounded values gives the logits of the integer kernels."""
    real, simulated = (openvino.int8(four_bits, 1, simulated=how).forward(images) for how in (False, True))
    assert (sqnr(real, simulated) or np.inf) > 40


def test_kept_layers_run_in_floating_point(
    network: Network[FoldedLayer], four_bits: Network[QuantizedLayer], images: np.ndarray
) -> None:
    """With every layer kept the INT8 graph gives FP32's logits; with some kept it runs both precisions."""
    names = frozenset(layer.spec.name for layer in network)
    exact = openvino.floating(network, 1).forward(images)
    kept = rounding.kept_floating(four_bits, network, names)
    assert (sqnr(exact, openvino.int8(kept, 1).forward(images)) or np.inf) > 90
    some = openvino.int8(bound.blend(four_bits, kept)(frozenset({"conv1", "layer4.1.conv1", "fc"})), 1)
    assert some.convolution_precision == "f32+u8"


def test_a_mixed_artifact_is_served(
    network: Network[FoldedLayer], four_bits: Network[QuantizedLayer], images: np.ndarray, tmp_path: Path
) -> None:
    """An artifact with kept layers loads as the variant int8, which says which they are, and gives the same logits."""
    mixed = rounding.kept_floating(four_bits, network, frozenset({"layer1.0.conv1"}))
    path = tmp_path / "mixed.int8.safetensors"
    path.write_bytes(quantized.serialize(mixed, "a" * 64, "b" * 64, cifar10.CLASSES))
    engine = loading.load("int8", threads=1, checkpoint=path)
    assert any("kept in FP32: layer1.0.conv1" in note for note in engine.info.notes)
    assert np.array_equal(engine.run(images).logits, openvino.int8(mixed, 1).forward(images))


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 50), (torch.bfloat16, 35)])
def test_half_precision_is_close(
    network: Network[FoldedLayer], images: np.ndarray, dtype: torch.dtype, least: float
) -> None:
    """The network in half precision gives nearly FP32's logits; bfloat16 has 8 bits of precision, FP16 11."""
    exact = openvino.floating(network, 1).forward(images)
    assert least < (sqnr(exact, halves.forward(network, dtype)(images)) or np.inf) < 100


@pytest.mark.gpu
def test_autocast_is_close(network: Network[FoldedLayer], images: np.ndarray) -> None:
    """On a GPU the network under autocast gives nearly FP32's logits."""
    exact = openvino.floating(network, 1).forward(images)
    assert (sqnr(exact, halves.autocast(network, torch.float16)(images)) or np.inf) > 45


def test_gradients_of_a_rounding() -> None:
    """Inside of the limits a rounding passes the gradient on, outside not; the step gets LSQ's gradient."""
    x = torch.tensor([[-1.2, 0.3, 0.9, 9.0]], requires_grad=True)
    step = torch.tensor(0.5, requires_grad=True)
    y = Rounding.apply(x, step, -2, 3)
    assert y.tolist() == [[-1.0, 0.5, 1.0, 1.5]]
    y.sum().backward()
    assert x.grad is not None
    assert step.grad is not None
    assert x.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]
    assert step.grad.item() == pytest.approx((-2 + 0.4 + 0.2 + 3) / np.sqrt(4 * 3), rel=1e-5)


def test_equalization_keeps_the_answers(network: Network[FoldedLayer], images: np.ndarray) -> None:
    """The equalized network gives the same logits, with neighbouring weights of similar range."""
    equal = correction.equalized(network)
    assert (sqnr(*(openvino.floating(one, 1).forward(images) for one in (network, equal))) or np.inf) > 90
    first, second = (layer for layer in equal if layer.spec.name in {"layer1.0.conv1", "layer1.0.conv2"})
    ours, theirs = np.abs(first.weight).max((1, 2, 3)), np.abs(second.weight).max((0, 2, 3))
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_correction_restores_means(
    network: Network[FoldedLayer], ranges: dict[str, tuple[float, float]], images: np.ndarray
) -> None:
    """Corrected on some images, weights of 4 bits that were chosen by least squares give better logits on them."""
    low = rounded(network, ranges, "w4a8-least-squares")
    exact = openvino.floating(network, 1).forward(images)
    before, after = (
        sqnr(exact, running.forward(one, 1)(images)) for one in (low, correction.corrected(network, low, images))
    )
    assert before is not None
    assert after is not None
    assert after > before + 2


def seen(values: np.ndarray) -> Seen:
    """Return what calibration sees of values."""
    extremes = min(0.0, float(values.min())), float(values.max())
    return Seen(extremes, extremes, calibrate.histogram(values, extremes).astype(float))


@pytest.mark.parametrize("levels", [16, 256])
def test_least_squares_beats_other_observers(levels: int) -> None:
    """On a ReLU's output with a long tail no other observer has a smaller squared error of rounding."""
    values = np.maximum(np.random.default_rng(0).standard_t(4, 20_000), 0).astype(np.float32)

    def error(name: str) -> float:
        _, high = observers.OBSERVERS[name](seen(values), levels)
        step = high / (levels - 1)
        return float(((np.rint(values / step).clip(0, levels - 1) * step - values) ** 2).sum())

    errors = {name: error(name) for name in observers.OBSERVERS}
    assert min(errors, key=lambda name: errors[name]) == "least-squares"


def test_every_range_includes_zero_and_lies_within() -> None:
    """No observer chooses a range beyond what was seen, or one without 0."""
    values = np.random.default_rng(0).normal(0.2, 1, 10_000).astype(np.float32)
    found = seen(values)
    for observe in observers.OBSERVERS.values():
        low, high = observe(found, 256)
        assert found.extremes[0] <= low <= 0 < high <= found.extremes[1]
    assert len(found.counts) == BINS


def test_packed_weights_take_half_a_byte(four_bits: Network[QuantizedLayer]) -> None:
    """Weights of 4 bits pack two to a byte and come back equal."""
    content = packing.packed(four_bits)
    weights = packing.unpacked_weights(content, four_bits)
    assert all(np.array_equal(weights[layer.spec.name], layer.weight) for layer in four_bits)
    inner = sum(layer.weight.size for layer in four_bits if layer.spec.name not in {"conv1", "fc"})
    assert inner / 2 < len(content) < 1.02 * inner / 2


@pytest.mark.parametrize(("enough", "expected"), [(0, 0), (1, 1), (5, 5), (21, 21), (99, 21)])
def test_bisection_keeps_the_fewest(enough: int, expected: int) -> None:
    """The bisection returns the least number of layers that is enough, and all of them if none is."""
    assert bound.bisected(lambda count: 0.0 if count >= enough else -1.0, 21, -0.1) == expected
