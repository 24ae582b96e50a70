"""The labelled images of a folder, and how their classes and the service's meet."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loadtest.analysis.accuracy import accuracies
from loadtest.client import classes, folders
from loadtest.client.description import Description
from loadtest.client.images import UNLABELLED, ImagesError, LabelledImages, bodies
from tests.loadtest.builders import arm, played, request


def paint(place: Path, shade: int, size: tuple[int, int] = (40, 30)) -> bytes:
    """Write a grey image, in the format of its suffix, and return the content of the file."""
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade,) * 3).save(place)
    return place.read_bytes()


def test_a_folder_has_one_subfolder_for_each_class(tmp_path: Path) -> None:
    """The files are sent as they are, each with its own media type; classes take turns; hidden files are no images."""
    contents = [
        paint(tmp_path / "cat" / "1.png", 10),
        paint(tmp_path / "dog" / "deep" / "1.jpg", 20),
        paint(tmp_path / "cat" / "2.png", 30),
    ]
    (tmp_path / "cat" / "._1.png").write_bytes(b"Mac OS X")
    paint(tmp_path / ".cache" / "1.png", 40)
    (tmp_path / "cat" / "3.png").write_bytes(b"damaged")
    images = folders.read(tmp_path, "png")
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 1, 0]
    assert [file.content for file in images.files] == contents
    assert images.formats("png") == ("jpeg", "png")
    assert [sentence.partition(" (")[0] for sentence in images.left_out] == [f"{tmp_path}/cat/3.png cannot be read"]
    sent = bodies(images, "png", 1, seed=0)
    assert {kind: sent.content_types.count(kind) for kind in ("image/png", "image/jpeg")} == {
        "image/png": 2,
        "image/jpeg": 1,
    }
    with pytest.raises(ImagesError, match="--payload raw sends pixels"):
        bodies(images, "raw", 1, seed=0)


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    """One sentence says which subfolders were expected and found."""
    paint(tmp_path / "cat" / "1.png", 10)
    with pytest.raises(ImagesError, match="expected one subfolder for each class, found cat"):
        folders.read(tmp_path, "png")


def test_a_prepared_folder_sends_its_held_out_originals(tmp_path: Path) -> None:
    """The split names them. Raw bodies, and a folder whose originals are gone, take the prepared pixels."""
    photos, prepared = tmp_path / "photos", tmp_path / "prepared"
    content = paint(photos / "dog" / "1.jpg", 20)
    prepared.mkdir()
    held_out = [{"file": "dog/1.jpg", "label": "dog"}]
    said = {"folder": str(photos), "classes": ["cat", "dog"], "held_out": held_out}
    (prepared / "model.split.json").write_text(json.dumps(said))
    pixels = np.full((1, 3, 64, 64), 20, np.uint8)
    np.savez(prepared / "model.held-out.npz", images=pixels, labels=np.ones(1, np.int64), classes=["cat", "dog"])
    images = folders.read(prepared, "png")
    assert ([file.content for file in images.files], images.labels.tolist()) == ([content], [1])
    assert np.array_equal(folders.read(prepared, "raw").pixels, pixels)
    (photos / "dog" / "1.jpg").unlink()
    gone = folders.read(prepared, "png")
    assert (np.array_equal(gone.pixels, pixels), gone.classes) == (True, ("cat", "dog"))
    (body,) = bodies(gone, "png", 1, seed=0).bodies
    assert Image.open(io.BytesIO(body)).size == (64, 64)


def some(*names: str) -> LabelledImages:
    """Return an image for each of these classes."""
    return LabelledImages(np.zeros((len(names), 3, 32, 32), np.uint8), np.arange(len(names)), names)


def test_classes_are_matched_by_name() -> None:
    """Labels become the indices of the service's classes, in whichever order it has them."""
    found = classes.matched(some("cat", "dog"), ("horse", "dog", "cat"), is_chosen=True)
    assert (found.labels.tolist(), found.classes) == ([2, 1], ("horse", "dog", "cat"))


def test_classes_that_the_service_does_not_know_are_refused() -> None:
    """The sentence lists the classes of both sides."""
    expected = r"does not know 1 classes \(yak\) .* have 2 classes \(cat, yak\), the service has 2 classes \(cat, dog\)"
    with pytest.raises(ImagesError, match=expected):
        classes.matched(some("cat", "yak"), ("cat", "dog"), is_chosen=True)


def test_bundled_images_of_other_classes_are_sent_unlabelled() -> None:
    """Without --images the times still count: such images have no part in the accuracy, but in the agreement."""
    images = classes.matched(some("cat", "ship"), ("dog", "cat"), is_chosen=False)
    assert images.labels.tolist() == [1, UNLABELLED]
    sent = bodies(images, "raw", 1, seed=0)
    fp32, int8 = arm("fp32"), arm("int8")
    rounds = [played(one, [request(0.0, 0.1, n, answer=1) for n in range(2)]) for one in (fp32, int8)]
    found = accuracies((fp32, int8), {"int8": "fp32"}, images, sent, rounds)[1]
    assert (found.images, found.accuracy.estimate, found.right) == (1, 1.0, "1-")
    assert (found.against.images, found.against.difference.estimate) == (2, 0.0)


@pytest.mark.parametrize("served", [(), ("class 0", "class 1")], ids=["unnamed", "numbered"])
def test_without_names_labels_are_indices(served: tuple[str, ...]) -> None:
    """A service that does not name its classes answers with the indices of the sorted subfolders."""
    found = classes.matched(some("cat", "dog"), served, is_chosen=True)
    assert (found.labels.tolist(), found.classes) == ([0, 1], ("cat", "dog"))
    with pytest.raises(ImagesError, match="the images have 3 classes, and the service has 2 classes"):
        classes.matched(some("a", "b", "c"), ("class 0", "class 1"), is_chosen=True)


def test_services_with_different_classes_are_not_compared() -> None:
    """One index would mean two classes."""
    described = [Description((), {"classes": names}, {}) for names in (["cat", "dog"], ["dog", "cat"])]
    assert classes.classes_of(described[:1] * 2) == ("cat", "dog")
    with pytest.raises(ImagesError, match="the services have different classes"):
        classes.classes_of(described)
