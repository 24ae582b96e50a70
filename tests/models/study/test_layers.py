"""The comparison layer by layer finds the layer at fault."""

from dataclasses import replace
from pathlib import Path

import pytest

from models import cifar10, files
from models.engines import quantized
from models.study import layers

IMAGES = cifar10.sample()[0][:8]


@pytest.mark.parametrize("bad", ["layer2.0.downsample.0", "layer3.1.conv1"])
def test_a_bad_range_is_found(bad: str) -> None:
    """A range that is eight times too narrow makes its layer the one at fault, with most of what is clipped."""
    exact, good = (layers.network_of(name, files.BUNDLED) for name in ("fp32", "int8"))
    planted = good.map(
        lambda layer: replace(layer, output_scale=layer.output_scale / 8) if layer.spec.name == bad else layer
    )
    reports = layers.compare(exact, planted, IMAGES)
    assert layers.at_fault(reports).layer == bad
    assert max(reports, key=lambda one: one.clipped).layer == bad
    assert min(one.own_sqnr_db for one in layers.compare(exact, good, IMAGES)) > 30


def test_the_command_draws_and_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command takes variants and artifacts, prints a row for each layer and the layer at fault, and draws."""
    good = layers.network_of("int8", files.BUNDLED)
    artifact = tmp_path / "own.int8.safetensors"
    artifact.write_bytes(quantized.serialize(good, "a" * 64, "b" * 64, cifar10.CLASSES))
    picture = tmp_path / "layers.png"
    layers.main(["int8", str(artifact), "--images", "2", "--out", str(picture)])
    said = capsys.readouterr().out
    assert said.count("| 200.0 ") >= 21
    assert "has the largest error of its own" in said
    assert picture.stat().st_size > 10_000
