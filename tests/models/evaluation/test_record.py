"""The numbers beside the bundled weights are theirs, good enough, and what a new measurement finds."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from models import cifar10, evaluate, files
from models.card import Card
from models.evaluation import record as evaluation
from models.files import CheckpointError
from tests.models.conftest import Load

EVALUATED = ("fp32", "int8", "int8-dynamic")
LARGEST_DROP = 0.003
LEAST_AGREEMENT = 0.985


@pytest.fixture
def entries(checkpoint_path: Path) -> dict[str, evaluation.Entry]:
    return evaluation.read(checkpoint_path)


def engine_card(load: Load, name: str) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(load(name).info)))


@pytest.mark.parametrize("name", EVALUATED)
def test_the_numbers_are_of_these_weights(name: str, entries: dict[str, evaluation.Entry], load: Load) -> None:
    """New weights or a new calibration need new numbers: `python -m models.evaluate --corruptions all --card`."""
    assert evaluation.belongs(entries[name], engine_card(load, name))
    assert entries[name]["clean"]["score"]["images"] == 10_000
    assert len(entries[name]["corrupted"]) == 15
    assert entries[name]["serialized_bytes"] == load(name).info.serialized_bytes


def test_fp32_is_as_good_as_the_checkpoints_card_says(entries: dict[str, evaluation.Entry], card: Card) -> None:
    """The accuracy that training wrote down and the one of the evaluation are the same, to a near tie."""
    assert entries["fp32"]["clean"]["score"]["top1"]["estimate"] == pytest.approx(card.test_accuracy, abs=0.0003)


@pytest.mark.parametrize("name", ["int8", "int8-dynamic"])
def test_int8_gives_the_same_answers(name: str, entries: dict[str, evaluation.Entry]) -> None:
    """On the 10,000 test images, against fp32: at most 0.3 points lost, at least 98.5 % the same class."""
    paired = entries[name]["clean"]["paired"]
    assert paired["reference"] == "fp32"
    assert paired["difference"]["estimate"] >= -LARGEST_DROP
    assert paired["agreement"]["estimate"] >= LEAST_AGREEMENT


@pytest.mark.slow
@pytest.mark.dataset
def test_int8_is_as_good_as_its_card_says(entries: dict[str, evaluation.Entry], load: Load) -> None:
    """Measured again on all test images: the card's accuracy, within what instruction sets may differ in."""
    images, labels = cifar10.read(cifar10.default_root(), "test")
    engine = load("int8")
    found = np.concatenate(
        [engine.run(np.ascontiguousarray(images[i : i + 250])).logits for i in range(0, 10_000, 250)]
    )
    stated = entries["int8"]["clean"]["score"]["top1"]["estimate"]
    assert float((found.argmax(1) == labels).mean()) == pytest.approx(stated, abs=0.002)


def test_other_weights_have_no_numbers(entries: dict[str, evaluation.Entry], load: Load) -> None:
    """Another checkpoint, another calibration, another size of image, or a variant that is not loaded yet."""
    engine = engine_card(load, "int8")
    assert not evaluation.belongs(entries["int8"], engine | {"checkpoint_sha256": "0" * 64})
    assert not evaluation.belongs(entries["int8"], engine | {"calibration_sha256": "0" * 64})
    assert not evaluation.belongs(entries["int8"], engine | {"input_size": 64})
    assert not evaluation.belongs(entries["int8"], {})


def test_the_command_writes_cards(
    tiny_dataset: Path, tmp_path: Path, checkpoint_path: Path, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--card` writes beside the checkpoint; a later run of other variants adds to it, other weights replace it."""
    own = tmp_path / checkpoint_path.name
    for suffix in (".safetensors", ".json", ".int8.json"):
        files.beside(own, suffix).write_bytes(files.beside(checkpoint_path, suffix).read_bytes())
    stale = tmp_path / f"{own.name.partition('.')[0]}.evaluation.json"
    stale.write_text(json.dumps({"fp16": {"checkpoint_sha256": "0" * 64}}))
    flags = ["--data", str(tiny_dataset), "--out", str(tmp_path / "out"), "--checkpoint", str(own), "--threads", "1"]
    for name in ("int8", "fp32-cpu"):
        evaluate.main([*flags, "--batch-sizes", "10", "--batch-images", "20", "--record", "--variants", name])
    assert str(stale) in capsys.readouterr().out
    found = evaluation.read(own)
    assert list(found) == ["int8", "fp32-cpu"]
    assert evaluation.belongs(found["int8"], engine_card(load, "int8"))
    assert found["int8"]["batches"][0]["batch_size"] == 10


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """The error says how to write it again."""
    (tmp_path / "x.evaluation.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"x.evaluation.json cannot be read .*models.evaluate --record"):
        evaluation.read(tmp_path / "x.safetensors")
    evaluation.write(tmp_path / "x.safetensors", {"int8": {"checkpoint_sha256": "a"}})
    assert list(evaluation.read(tmp_path / "x.safetensors")) == ["int8"]
    assert evaluation.read(tmp_path / "y.safetensors") == {}
