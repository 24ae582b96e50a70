"""`python -m models.evaluate` from flags to files, on a tiny data set."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common import machine
from models import cifar10, evaluate
from models.engines.base import Engine
from models.evaluation import answers, batches, sheet, statistics
from models.evaluation.images import cifar10_test
from models.files import CheckpointError
from models.sample import Labelled
from tests.models.conftest import Load

FLAGS = "--variants fp32-cpu,int8 --threads 1 --batch-sizes 2,5 --batch-images 10 --corruptions jpeg@1 --device cpu"


@pytest.fixture
def out(tiny_dataset: Path, tmp_path: Path) -> Path:
    """Return the folder of one evaluation on the 20 images of the tiny data set."""
    evaluate.main([*FLAGS.split(), "--data", str(tiny_dataset), "--out", str(tmp_path / "out")])
    return tmp_path / "out"


def test_native_variants_are_evaluated_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `--variants`, bf16-cpu is evaluated beside fp32 and int8 on a CPU that computes in bfloat16."""
    for flags, more in (("avx2", ()), ("avx2 avx512_bf16", ("bf16-cpu",))):
        monkeypatch.setattr(machine, "flags", lambda flags=flags: frozenset(flags.split()))
        assert evaluate.parse([]).variants == ("fp32", "int8", *more)


def test_everything_is_written(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON holds each variant's info, results and batches, and the printed table is in the Markdown."""
    report = json.loads((out / "evaluation.json").read_text())
    assert (report["reference"], list(report["variants"])) == ("fp32-cpu", ["fp32-cpu", "int8"])
    found = report["variants"]["int8"]
    assert list(found["results"]) == ["clean", "jpeg@1"]
    assert found["results"]["clean"]["score"]["images"] == 20
    assert found["results"]["clean"]["paired"]["reference"] == "fp32-cpu"
    assert report["variants"]["fp32-cpu"]["results"]["clean"]["paired"] is None
    assert [(row["batch_size"], row["batches"]) for row in found["batches"]] == [(2, 5), (5, 2)]
    assert found["info"]["variant"] == "int8"
    assert len(report["batches"]) == 2 * (5 + 2)
    table = capsys.readouterr().out.splitlines()[:-1]
    assert "\n".join(table) in (out / "evaluation.md").read_text()


def test_a_second_run_reads_the_first_ones_answers(
    out: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command again reuses the stored logits and gives the same results."""
    first = json.loads((out / "evaluation.json").read_text())
    before = {place: place.stat().st_mtime_ns for place in (out / "logits").iterdir()}
    assert len(before) == 4
    evaluate.main([*FLAGS.split(), "--data", str(tiny_dataset), "--out", str(out)])
    assert {place: place.stat().st_mtime_ns for place in (out / "logits").iterdir()} == before
    second = json.loads((out / "evaluation.json").read_text())
    assert all(first["variants"][n]["results"] == second["variants"][n]["results"] for n in first["variants"])


def test_answers_are_reused_only_for_the_same_images(load: Load, images: np.ndarray, tmp_path: Path) -> None:
    """Logits are computed again if a pixel differs or the file is damaged."""
    engine: Engine = load("int8")
    place = tmp_path / "x.npz"
    first = answers.answer(engine, images[:10], 4, place, "")
    assert np.array_equal(first, engine.run(images[:10]).logits)
    changed = images[:10].copy()
    changed[9] ^= 255
    assert not np.array_equal(answers.answer(engine, changed, 4, place, "")[9], first[9])
    place.write_bytes(place.read_bytes()[:100])
    assert np.array_equal(answers.answer(engine, images[:10], 4, place, ""), first)


def test_variants_take_turns(load: Load, images: np.ndarray) -> None:
    """Each batch goes through every variant before the next batch does, and its memory is measured."""
    found = batches.measure({name: load(name) for name in ("int8", "fp32-cpu")}, images[:13], [4])
    assert [{a.variant, b.variant} for a, b in zip(found[::2], found[1::2], strict=True)] == [{"int8", "fp32-cpu"}] * 3
    assert min(batch.memory_bytes for batch in found) > 0


def test_a_summary_is_the_median() -> None:
    """A summary has the median, least and most seconds of the batches, and images per second from the median."""
    rows = [batches.Batch("int8", 8, seconds, seconds, 7, "activation_peak") for seconds in (0.5, 2.0, 0.1)]
    (found,) = batches.summarise(rows)
    assert (found.median_seconds, found.least_seconds, found.most_seconds) == (0.5, 0.1, 2.0)
    assert (found.images_per_second, found.memory_bytes) == (16, 7)


@pytest.mark.parametrize("count", [1, 11, 250])
def test_the_sheet_has_a_cell_per_image(count: int, images: np.ndarray) -> None:
    """The sheet has rows of ten cells, at most 200 images, and each cell shows its image."""
    pixels = np.resize(images, (count, 3, 32, 32))
    wrong, right = np.ones((count, 10)), np.eye(10)[np.zeros(count, int)]
    labels = np.zeros(count, np.int64)
    labelled = Labelled(pixels, labels, cifar10.CLASSES, "")
    wrong[:, 1] = 2
    paired = statistics.compare(wrong, right, labels, "fp32")
    drawn = sheet.draw(labelled, (right.argmax(1), wrong.argmax(1)), ("fp32", "int8"), paired)
    rows = -(-min(count, sheet.LIMIT) // sheet.COLUMNS)
    assert drawn.height == sheet.HEADER + rows * sheet.CELL[1] + sheet.MARGIN
    thumb = drawn.crop((sheet.MARGIN, sheet.HEADER, sheet.MARGIN + sheet.THUMB, sheet.HEADER + sheet.THUMB))
    assert np.array_equal(np.asarray(thumb.resize((32, 32), Image.Resampling.NEAREST)), pixels[0].transpose(1, 2, 0))


def test_without_the_data_set_it_says_so(tmp_path: Path) -> None:
    """Without the data set the command ends with one sentence that names the command to download it."""
    with pytest.raises(SystemExit, match=r"^error: .*test_batch.bin is missing: run `python -m models.cifar10"):
        evaluate.main(["--data", str(tmp_path)])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--variants fp64", "expected distinct names of fp32, fp16, int8"),
        ("--variants int8,int8", "expected distinct names"),
        ("--batch-sizes 0", "expected a whole number from 1, got '0'"),
        ("--device gpu", "expected cpu, cuda or cuda:N, got 'gpu'"),
        ("--batch-sizes 8,x", "expected a whole number from 1, got 'x'"),
        ("--batch-sizes 512 --batch-images 256", "expected at most --batch-images and --count"),
        ("--corruptions fog@1", "severity"),
    ],
)
def test_a_wrong_flag_is_named(flags: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong flag is an error that says what is expected."""
    with pytest.raises(SystemExit):
        evaluate.main(flags.split())
    assert words in capsys.readouterr().err


def test_classes_in_another_order_are_judged_by_name(tiny_dataset: Path, load: Load) -> None:
    """CIFAR-10's labels become the indices of the network's classes, in whichever order it has them."""
    classes = cifar10.CLASSES[::-1]
    found = cifar10_test(tiny_dataset, Path("own.pt"), classes)
    labels = cifar10.read(tiny_dataset, "test")[1]
    assert [found.classes[label] for label in found.labels] == [cifar10.CLASSES[label] for label in labels]
    with pytest.raises(CheckpointError, match=r"own.pt has the classes a, b, .*airplane.*with --images FOLDER"):
        cifar10_test(tiny_dataset, Path("own.pt"), tuple("abcdefghij"))


def test_a_folder_of_pictures_judges(tmp_path: Path, images: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    """`--images FOLDER` judges on one subfolder for each class, matched by name, also under a corruption."""
    labels = cifar10.sample()[1]
    for index in range(20):
        place = tmp_path / "photos" / cifar10.CLASSES[labels[index]] / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[index].transpose(1, 2, 0)).save(place)
    (tmp_path / "photos" / "cat" / "damaged.png").touch()
    evaluate.main([*FLAGS.split(), "--images", str(tmp_path / "photos"), "--out", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    score = report["variants"]["int8"]["results"]["clean"]["score"]
    assert (score["images"], report["data"]) == (20, "photos")
    assert score["top1"]["estimate"] > 0.8
    assert "jpeg@1" in report["variants"]["int8"]["results"]
    assert "1 are left out: " in capsys.readouterr().err


def test_a_number_of_images_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """`--images` took a number once: the error names the flag that does."""
    with pytest.raises(SystemExit):
        evaluate.parse(["--images", "2000"])
    assert "a number of images is --count" in capsys.readouterr().err
