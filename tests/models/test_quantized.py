"""The INT8 weights, their arithmetic, and the artifact that holds them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common import machine
from models import calibration, checkpoint, files, loading
from models.card import Card, Preparation
from models.engines import openvino, quantized
from models.engines.network import FoldedLayer, fold
from models.engines.quantized import FULL_LIMIT, SAFE_LIMIT, QuantizedLayer
from models.engines.tensors import mean_and_scale
from models.files import CheckpointError
from models.logits import sqnr
from models.topology import Network
from models.variants import VARIANTS
from tests.models.conftest import Load


@pytest.fixture(scope="module")
def folded(checkpoint_path: Path) -> Network[FoldedLayer]:
    """Return the FP32 network."""
    return fold(checkpoint.load(checkpoint_path)[0])


@pytest.fixture(scope="module")
def ranges(checkpoint_path: Path, card: Card) -> dict[str, tuple[float, float]]:
    """Return the calibrated ranges."""
    return calibration.load(files.beside(checkpoint_path, ".int8.json"), card.sha256).ranges


@pytest.fixture(scope="module")
def network(folded: Network[FoldedLayer], ranges: dict[str, tuple[float, float]]) -> Network[QuantizedLayer]:
    """Return the INT8 network with full weights."""
    return quantized.quantize(folded, ranges, FULL_LIMIT)


@pytest.fixture
def artifact(tmp_path: Path, network: Network[QuantizedLayer], card: Card) -> Path:
    """Return an INT8 artifact."""
    path = tmp_path / "model.int8.safetensors"
    path.write_bytes(quantized.serialize(network, card.sha256, "c" * 64, card.labels))
    return path


def test_the_artifact_says_what_it_is(artifact: Path, network: Network[QuantizedLayer], card: Card) -> None:
    """An artifact has its checkpoint's classes; flags that contradict it and other variants are errors."""
    mine = tuple("abcdefghij")
    artifact.write_bytes(quantized.serialize(network, card.sha256, "c" * 64, mine))
    assert checkpoint.inspect(artifact).classes == mine
    loading.load("int8", threads=1, checkpoint=artifact, preparation=Preparation(input_size=32))
    for said in (Preparation(input_size=40), Preparation(mean=(0.5, 0.5, 0.5)), Preparation(calibration_images=Path())):
        with pytest.raises(CheckpointError, match=r"INT8 artifact: input size .* leave those flags out"):
            loading.load("int8", threads=1, checkpoint=artifact, preparation=said)
    with pytest.raises(CheckpointError, match="is an INT8 artifact: of the variants, it has int8 only"):
        loading.load("fp32-cpu", threads=1, checkpoint=artifact)


def test_the_artifact_is_enough(
    artifact: Path, images: np.ndarray, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With VNNI int8 gives the same logits to the bit from the artifact alone, without checkpoint and calibration."""
    monkeypatch.setattr(machine, "has_vnni", lambda: True)
    alone, whole = (loading.load("int8", threads=1, checkpoint=path) for path in (artifact, files.BUNDLED))
    assert np.array_equal(alone.run(images[:32]).logits, whole.run(images[:32]).logits)
    assert alone.info.checkpoint_sha256 == card.sha256


def test_without_vnni_a_checkpoints_weights_are_rounded_once(
    artifact: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of 7 bits come straight from the checkpoint; those of an artifact are rounded again and lose SQNR."""
    monkeypatch.setattr(machine, "has_vnni", lambda: False)
    exact = loading.load("fp32-cpu", threads=1).run(images[:64]).logits
    engines = [loading.load("int8", threads=1, checkpoint=path) for path in (files.BUNDLED, artifact)]
    once, twice = (sqnr(exact, engine.run(images[:64]).logits) or 0.0 for engine in engines)
    assert once > 30
    assert twice > 25
    assert once > twice + 2
    assert all("no VNNI on this CPU" in engine.info.notes[-1] for engine in engines)


def test_the_size_in_the_info_is_the_artifacts(artifact: Path, load: Load) -> None:
    """int8's serialized_bytes is the size of the file that models.quantize writes."""
    assert artifact.stat().st_size == load("int8").info.serialized_bytes


@pytest.mark.parametrize("position", [20, 2000, -100])
def test_a_damaged_artifact_is_refused(artifact: Path, position: int) -> None:
    """An artifact with one changed bit, in the header or in the weights, does not load."""
    data = bytearray(artifact.read_bytes())
    data[position] ^= 1
    artifact.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model.int8.safetensors is (damaged|not a safetensors file)"):
        loading.load("int8", checkpoint=artifact)


def test_a_truncated_artifact_is_refused(artifact: Path) -> None:
    """An artifact that lacks its last byte does not load."""
    artifact.write_bytes(artifact.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"damaged or no INT8 artifact \(.+\); write it again"):
        loading.load("int8", checkpoint=artifact)


def test_a_missing_artifact_is_refused(tmp_path: Path) -> None:
    """A missing artifact is an error."""
    with pytest.raises(CheckpointError, match="is missing"):
        loading.load("int8", checkpoint=tmp_path / "none.int8.safetensors")


def test_weights_use_the_whole_range(network: Network[QuantizedLayer]) -> None:
    """The largest weight of each output channel is 127 in magnitude: each channel has its own scale."""
    for layer in network:
        largest = np.abs(layer.weight.reshape(len(layer.weight), -1).astype(int)).max(1)
        assert largest.min() == largest.max() == FULL_LIMIT


def test_safe_weights_cannot_saturate(network: Network[QuantizedLayer], folded: Network[FoldedLayer]) -> None:
    """With weights of at most 64 the sum of two products with uint8 fits into 16 bits."""
    assert 2 * 255 * SAFE_LIMIT < 2**15
    for layer in quantized.narrowed(network):
        assert np.abs(layer.weight.astype(int)).max() == SAFE_LIMIT
    real = [
        layer.weight_scale.reshape(-1, 1, 1, 1) * layer.weight[:, :3]
        for layer in (network.stem, quantized.narrowed(network).stem)
    ]
    assert np.abs(real[0] - real[1]).max() < np.abs(folded.stem.weight).max() / 20


def test_the_stem_is_exact_at_the_border(network: Network[QuantizedLayer], images: np.ndarray) -> None:
    """On framed raw pixels the stem gives what its weights give on normalised, zero-padded pixels, border included.

    The fourth channel's weights are rounded, so the error is at most half a step for each of five padded positions.
    """
    stem, pixels = network.stem, torch.from_numpy(images[:8])
    mean, _ = mean_and_scale(network.input)
    integers, scale, bias = (torch.from_numpy(array) for array in (stem.weight, stem.weight_scale, stem.bias))
    step = scale.view(-1, 1, 1)
    weight = integers[:, :3].double() * step.unsqueeze(-1)
    folded_mean = (weight * mean).sum((1, 2, 3))
    expected = F.conv2d(pixels.double() - mean, weight, bias.double() + folded_mean, padding=1)
    framed = torch.from_numpy(quantized.Frame(network.input, 1)(images[:8])).permute(0, 3, 1, 2).double()
    found = F.conv2d(framed, integers.double()) * step + bias.view(-1, 1, 1)
    error = (expected - found).abs() / step
    assert error.max() <= 5 * 0.5 + 1e-3
    assert error[:, :, 1:-1, 1:-1].max() < 1e-3


def test_a_large_head_gives_the_same_logits(
    network: Network[QuantizedLayer], images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Average and linear layer in floating point, as for large networks, give the logits of the integer convolution."""
    narrowed = quantized.narrowed(network)
    assert quantized.has_integer_head(narrowed.head)
    small = openvino.int8(narrowed, 1).forward(images[:8])
    monkeypatch.setattr(quantized, "LARGEST_KERNEL", 0)
    assert not quantized.has_integer_head(narrowed.head)
    large = openvino.int8(narrowed, 1).forward(images[:8])
    assert np.abs(small - large).max() < 1e-3 * np.abs(small).max()


@pytest.mark.parametrize("damage", ["other checkpoint", "missing", "no JSON", "no ranges"])
def test_a_calibration_that_does_not_fit_is_refused(
    tmp_path: Path, checkpoint_path: Path, card: Card, damage: str
) -> None:
    """A calibration of another checkpoint, a missing or a damaged one is an error that names the command to run."""
    place = tmp_path / "x.int8.json"
    content = json.loads(files.beside(checkpoint_path, ".int8.json").read_text())
    if damage == "other checkpoint":
        place.write_text(json.dumps(content | {"checkpoint_sha256": "0" * 64}))
    elif damage == "no ranges":
        place.write_text(json.dumps({"checkpoint_sha256": card.sha256}))
    elif damage == "no JSON":
        place.write_text("{")
    with pytest.raises(CheckpointError, match=r"x.int8.json .* run `python -m models.quantize"):
        calibration.load(place, card.sha256)


def test_a_calibration_without_a_layer_is_refused(
    network: Network[QuantizedLayer], folded: Network[FoldedLayer]
) -> None:
    """Ranges that lack a layer are an error that names the layer."""
    ranges = {layer.spec.name: (0.0, 1.0) for layer in network if layer.spec.name not in {"fc", "layer3.0.conv1"}}
    with pytest.raises(CheckpointError, match=r"layer3\.0\.conv1"):
        quantized.quantize(folded, ranges, FULL_LIMIT)


@pytest.mark.slow
def test_it_works_without_vnni(checkpoint_path: Path) -> None:
    """On a CPU without VNNI (oneDNN capped to AVX2) int8 passes its self-test with safe weights, and a note says so."""
    code = (
        "from models import loading, selftest; e = loading.load('int8', threads=1); "
        "print(selftest.examine(e).agreement, e.info.notes); assert 'no VNNI' in e.info.notes[0]"
    )
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "CHECKPOINT": str(checkpoint_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[0]) >= VARIANTS["int8"].least_agreement
