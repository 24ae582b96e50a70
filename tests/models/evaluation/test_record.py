"""The record beside the bundled checkpoint: it belongs to it, it is good enough, and a new measurement agrees."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from common import machine
from models import cifar10, evaluate, files, loading
from models.card import Card
from models.evaluation import record as evaluation
from models.files import CheckpointError
from tests.models.conftest import Load

EVALUATED = ("fp32", "int8", "int8-dynamic")
LARGEST_DROP = 0.003
LEAST_AGREEMENT = 0.985


@pytest.fixture
def entries(checkpoint_path: Path) -> dict[str, evaluation.Entry]:
    """Return the record of the checkpoint under test."""
    return evaluation.read(checkpoint_path)


def info_of(load: Load, name: str) -> dict[str, object]:
    """Return an engine's info as JSON."""
    return json.loads(json.dumps(dataclasses.asdict(load(name).info)))


@pytest.mark.parametrize("name", EVALUATED)
def test_the_numbers_are_of_these_weights(name: str, entries: dict[str, evaluation.Entry], load: Load) -> None:
    """The record is of these weights and calibration; `models.evaluate --corruptions all --record` renews it."""
    assert evaluation.belongs(entries[name], info_of(load, name))
    assert entries[name]["clean"]["score"]["images"] == 10_000
    assert len(entries[name]["corrupted"]) == 15
    assert entries[name]["serialized_bytes"] == load(name).info.serialized_bytes


def test_fp32_is_as_good_as_the_checkpoints_card_says(entries: dict[str, evaluation.Entry], card: Card) -> None:
    """The accuracy on the checkpoint's card and in the record of fp32 are equal within three images."""
    assert entries["fp32"]["clean"]["score"]["top1"]["estimate"] == pytest.approx(card.test_accuracy, abs=0.0003)


@pytest.mark.parametrize("name", ["int8", "int8-dynamic"])
def test_int8_gives_the_same_answers(name: str, entries: dict[str, evaluation.Entry]) -> None:
    """On the 10,000 test images INT8 loses at most 0.3 points against fp32 and has 98.5 % of its classes."""
    paired = entries[name]["clean"]["paired"]
    assert paired["reference"] == "fp32"
    assert paired["difference"]["estimate"] >= -LARGEST_DROP
    assert paired["agreement"]["estimate"] >= LEAST_AGREEMENT


@pytest.mark.slow
@pytest.mark.dataset
def test_int8_is_as_good_as_its_record_says(entries: dict[str, evaluation.Entry]) -> None:
    """On all test images int8 has the recorded accuracy within 0.2 points, which instruction sets may differ in."""
    images, labels = cifar10.read(files.data_root(), "test")
    engine = loading.load("int8", threads=machine.available_cores())
    found = np.concatenate(
        [engine.run(np.ascontiguousarray(images[i : i + 250])).logits for i in range(0, 10_000, 250)]
    )
    stated = entries["int8"]["clean"]["score"]["top1"]["estimate"]
    assert float((found.argmax(1) == labels).mean()) == pytest.approx(stated, abs=0.002)


def test_other_weights_have_no_numbers(entries: dict[str, evaluation.Entry], load: Load) -> None:
    """An entry does not belong to another checkpoint, calibration or input size, or to an empty info."""
    info = info_of(load, "int8")
    assert not evaluation.belongs(entries["int8"], info | {"checkpoint_sha256": "0" * 64})
    assert not evaluation.belongs(entries["int8"], info | {"calibration_sha256": "0" * 64})
    assert not evaluation.belongs(entries["int8"], info | {"input_size": 64})
    assert not evaluation.belongs(entries["int8"], {})


def test_the_command_writes_the_record(
    tiny_dataset: Path, tmp_path: Path, checkpoint_path: Path, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--record` writes beside the checkpoint, keeps other variants of the same weights, and drops other weights."""
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
    assert evaluation.belongs(found["int8"], info_of(load, "int8"))
    assert found["int8"]["batches"][0]["batch_size"] == 10


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """A damaged record is an error that names the command to run, and the next one replaces it."""
    (tmp_path / "x.evaluation.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"x.evaluation.json cannot be read .*models.evaluate --record"):
        evaluation.read(tmp_path / "x.safetensors")
    again = evaluation.content(tmp_path / "x.safetensors", {"int8": {"checkpoint_sha256": "a"}})
    (tmp_path / "x.evaluation.json").write_bytes(again)
    assert list(evaluation.read(tmp_path / "x.safetensors")) == ["int8"]
    assert evaluation.read(tmp_path / "y.safetensors") == {}
