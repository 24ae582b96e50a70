"""The accuracy on labelled images: what is suspect, and what a wrong assumption about the bundled network does."""

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from models import accuracy, checkpoint, cifar10, files, loading, selftest
from models.accuracy import Assumption, SampleAccuracy, doubt
from models.card import AS_IT_SAYS, Card, Preparation, read_card
from models.engines.base import EngineInfo, Execution
from models.sample import labelled_sample
from models.variants import Variant
from tests.models.conftest import Answers, Load


@pytest.mark.parametrize(
    ("correct", "images", "classes", "claimed", "words"),
    [
        (43, 300, 10, None, "no better than chance, which is 10.0% with 10 classes"),
        (44, 300, 10, None, ""),
        (1, 300, 300, None, "no better than chance, which is 0.3% with 300 classes"),
        (56, 100, 2, None, "no better than chance, which is 50.0% with 2 classes"),
        (80, 100, 2, None, ""),
        (5, 5, 2, 0.95, ""),
        (272, 300, 10, 0.9518, "far below the 95.2% that the card claims"),
        (273, 300, 10, 0.9518, ""),
        (9700, 10000, 10, 0.98, ""),
        (9400, 10000, 10, 0.98, "far below the 98.0% that the card claims"),
        (42, 300, 10, 0.9518, "no better than chance, which is 10.0% with 10 classes"),
        (126, 300, 10, None, ""),
        (300, 300, 10, 1.0, ""),
    ],
)
def test_an_accuracy_is_judged(correct: int, images: int, classes: int, claimed: float | None, words: str) -> None:
    """Chance is judged by the binomial test at 0.01, a claim at 0.001 and from 3 points on; 5 images tell nothing."""
    assert doubt(correct, images, classes, claimed) == words


def judged(predicted: np.ndarray, labels: np.ndarray, classes: int, claimed: float | None = None) -> SampleAccuracy:
    """Return the judgement of an engine that predicts these classes."""
    assumed = (Assumption("std", "1", "default"), Assumption("channels", "RGB", "always"))
    return accuracy.judged(np.eye(classes, dtype=np.float32)[predicted], labels, claimed, "mine.images.npz", assumed)


def test_a_warning_names_what_is_assumed() -> None:
    """The warning has the accuracy, the file, the question and each assumption with its origin."""
    labels = np.arange(100) % 4
    found = judged(np.zeros(100, np.int64), labels, 4, 0.9)
    assert (found.correct, found.images, found.accuracy, found.is_suspect) == (25, 100, 0.25, True)
    assert found.warning == (
        "top-1 accuracy is 25.0% on the 100 labelled images of mine.images.npz: no better than chance, which is 25.0% "
        "with 4 classes. Is the normalisation right? Assumed: std 1 (default); channels RGB (always)."
    )


@pytest.mark.parametrize(("images", "shift", "proposes"), [(200, 1, True), (200, 0, False), (10, 1, False)])
def test_another_order_of_the_classes_is_proposed(images: int, shift: int, proposes: bool) -> None:
    """If each label has its own prediction, the warning proposes that order; noise and one image a class tell none."""
    labels = np.arange(images) % 10
    predicted = (labels + shift) % 10 if shift else np.random.default_rng(1).integers(0, 10, images)
    assert ("With the classes in another order it would be 100.0%" in judged(predicted, labels, 10).warning) == proposes


ROLLED = (*cifar10.CLASSES[1:], cifar10.CLASSES[0])
NO_NORMALISATION = Preparation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def measured(
    place: Path, preparation: Preparation, images: int = 300, logits: np.ndarray | None = None
) -> SampleAccuracy:
    """Return the judgement of a network's FP32 logits on so many bundled images; they are computed if not given.

    The self-test's comparison with the reference is left out: it takes a minute, and a wrong assumption passes it.
    """
    card = read_card(place)
    engine = loading.load("fp32-cpu", threads=1, checkpoint=place, preparation=preparation)
    sample = labelled_sample(place, preparation.over(card))
    assert sample is not None
    logits = engine.run(sample.images[:images]).logits if logits is None else logits
    assumed = accuracy.assumptions(engine.info, card, preparation)
    return accuracy.judged(logits, sample.labels[:images], card.test_accuracy, sample.source, assumed)


@pytest.mark.parametrize(
    ("preparation", "said"),
    [
        (Preparation(max_pool=True), "network torchvision ResNet18, 3x3 stride-1 stem, max-pool (pool: --max-pool)"),
        (NO_NORMALISATION, "std 1.0, 1.0, 1.0 (--std)"),
    ],
    ids=["pool", "normalisation"],
)
def test_a_wrong_flag_is_noticed(preparation: Preparation, said: str) -> None:
    """The bundled network with a max-pool, or without its normalisation, is suspect; the warning names the flag."""
    found = measured(files.BUNDLED, preparation, images=100)
    assert found.claimed == 0.9633
    assert "Is the normalisation right?" in found.warning
    assert said in found.warning


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return a copy of the bundled network with blue and red swapped in its stem, and the bundled card."""
    state, card = checkpoint.load(files.BUNDLED)
    swapped = {**state, "conv1.weight": np.ascontiguousarray(state["conv1.weight"][:, ::-1])}
    place = tmp_path / "own.safetensors"
    save_file(swapped, place)
    place.with_suffix(".json").write_text(json.dumps(asdict(replace(card, sha256=""))))
    return place


def test_swapped_channels_are_noticed(own: Path) -> None:
    """A network that was trained on BGR falls to 90 %, which is suspect only because its card claims 96 %."""
    found = measured(own, AS_IT_SAYS)
    assert 0.89 < found.accuracy < 0.91
    assert "far below the 96.3% that the card claims" in found.warning
    assert "channels RGB (always)" in found.warning
    assert doubt(found.correct, found.images, 10, None) == ""


def test_another_order_of_classes_is_noticed(own: Path, answers: Answers) -> None:
    """A card with class names shifted by one makes the accuracy suspect, and the warning proposes another order."""
    card = json.loads(own.with_suffix(".json").read_text())
    own.with_suffix(".json").write_text(json.dumps(card | {"classes": ROLLED}))
    found = measured(own, AS_IT_SAYS, logits=answers("fp32"))
    assert "no better than chance" in found.warning
    assert "order of classes automobile, bird" in found.warning
    assert "With the classes in another order it would be 9" in found.warning


def test_a_good_network_is_not_suspect(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """The bundled INT8 network passes the self-test and has a usual accuracy, which is in the log as information."""
    caplog.set_level(logging.INFO)
    found = selftest.examine(load("int8")).sample
    assert found is not None
    assert (found.images, found.claimed, found.warning) == (300, 0.9633, "")
    assert found.accuracy > 0.93
    assert [record.levelname for record in caplog.records if "labelled images" in record.message] == ["INFO"]


def test_an_own_sample_comes_first(tmp_path: Path) -> None:
    """The images beside a checkpoint are its sample, whatever its classes are; labels beyond them are refused."""
    place = tmp_path / "own.safetensors"
    images = np.zeros((3, 3, 64, 64), np.uint8)
    np.savez(tmp_path / "own.images.npz", images=images, labels=np.array([0, 1, 1]))
    sample = labelled_sample(place, Card(classes=("cat", "dog")))
    assert sample is not None
    assert (sample.images.shape, sample.labels.tolist(), sample.source) == (images.shape, [0, 1, 1], "own.images.npz")
    np.savez(tmp_path / "own.images.npz", images=images, labels=np.array([0, 1, 2]))
    with pytest.raises(files.CheckpointError, match=r"own\.images\.npz is no labelled sample .*labels from 0 to 1"):
        labelled_sample(place, Card(classes=("cat", "dog")))


@pytest.mark.parametrize(
    ("names", "labels"), [(["cat", "dog"], [0, 1]), (["dog", "cat"], [1, 0]), (["a", "b"], [0, 1])]
)
def test_names_in_an_own_sample_decide(tmp_path: Path, names: list[str], labels: list[int]) -> None:
    """A sample with the network's class names in another order keeps its labels by name; with other names, by index."""
    images = np.zeros((2, 3, 32, 32), np.uint8)
    np.savez(tmp_path / "own.images.npz", images=images, labels=np.array([0, 1]), classes=np.array(names))
    sample = labelled_sample(tmp_path / "own.safetensors", Card(classes=("cat", "dog")))
    assert sample is not None
    assert sample.labels.tolist() == labels


def test_the_bundled_sample_follows_the_names_of_the_classes(tmp_path: Path) -> None:
    """With CIFAR-10's names in another order the labels are that order's; with other names there is no sample."""
    place = tmp_path / "own.safetensors"
    sample = labelled_sample(place, Card(classes=ROLLED))
    assert sample is not None
    assert [ROLLED[label] for label in sample.labels] == [cifar10.CLASSES[label] for label in cifar10.sample()[1]]
    assert labelled_sample(place, Card(classes=tuple("abcdefghij"))) is None


class Prepared:
    """An engine of a network that was prepared for two classes and images of 64 pixels; its logits are known."""

    def __init__(self, variant: Variant, info: EngineInfo, logits: np.ndarray) -> None:
        self.variant, self.logits = variant, logits
        self.info = replace(info, input_size=64, classes=("cat", "dog"), checkpoint_sha256="ab")

    def run(self, pixels: np.ndarray) -> Execution:
        return Execution(self.logits[: len(pixels)], 0, 0, 0, 0, 0, "none")


def test_a_prepared_reference_is_not_computed_again(tmp_path: Path, load: Load) -> None:
    """The self-test of a prepared checkpoint takes images and reference from beside it: here there are no weights."""
    labels, loaded = np.arange(40) % 2, load("fp32-cpu")
    engine = Prepared(loaded.variant, loaded.info, np.eye(2, dtype=np.float32)[labels])
    info, place = engine.info, tmp_path / "own.safetensors"
    prepared = {"side": 64, "mean": info.mean, "std": info.std}
    card = Card(classes=info.classes, input_size=64, mean=info.mean, std=info.std, sha256="ab", test_accuracy=0.98)
    place.with_suffix(".json").write_text(json.dumps(asdict(card)))
    np.savez(tmp_path / "own.images.npz", images=np.zeros((40, 3, 64, 64), np.uint8), labels=labels)
    np.savez(
        tmp_path / "own.sample.npz", logits=engine.logits, checkpoint_sha256="ab", input=np.array(json.dumps(prepared))
    )
    found = selftest.examine(engine, place)
    assert (found.agreement, found.sample) == (1, SampleAccuracy(40, 40, 1.0, 0.98, "own.images.npz"))
