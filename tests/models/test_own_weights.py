"""A user's own ResNet18: either stem, either file format, any input size, against torchvision's own network."""

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import ResNet

from common import machine
from models import calibration, checkpoint, cifar10, loading, pickled, preprocess, reference, selftest
from models.card import Preparation
from models.checkpoint import inspect
from models.files import CheckpointError
from models.logits import sqnr
from models.resnet import resnet, resnet18
from models.topology import DEPTHS, STEMS, Architecture, detect, shapes
from tests.models.conftest import Spoilt

IMAGENET = Preparation(64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SENTENCES = {
    "cifar": "torchvision ResNet18, 3x3 stride-1 stem, no max-pool",
    "plain": "torchvision ResNet18, 7x7 stride-2 stem, max-pool",
}
OWN = {"plain": IMAGENET, "cifar": Preparation()}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty folder as cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "precision-service"


@pytest.fixture(scope="module", params=STEMS)
def net(request: pytest.FixtureRequest) -> ResNet:
    """Return an untrained network with BatchNorm statistics of the sample, so that its logits vary."""
    torch.manual_seed(4)
    net = resnet18(request.param)
    images = torch.from_numpy(cifar10.sample()[0][:100]).float() / 128 - 1
    with torch.no_grad():
        for _ in range(4):
            net(images)
    net.stem = request.param
    return net.eval()


ONE_STEM = pytest.mark.parametrize("net", ["plain"], indirect=True)
"""For facts that do not depend on the network; calibration of the plain stem takes a third of the time."""
FORMATS = {"own.safetensors": save_file, "own.pt": torch.save}


@pytest.fixture
def path(net: ResNet, tmp_path: Path) -> Path:
    """Return a file with the network as a user saves it, without a card; each stem comes in another format."""
    name = "own.pt" if net.stem == "plain" else "own.safetensors"
    FORMATS[name](net.state_dict(), tmp_path / name)
    return tmp_path / name


def test_both_formats_are_read_alike(net: ResNet, tmp_path: Path) -> None:
    """A .safetensors and a .pt of one network give the same tensors."""
    for name, save in FORMATS.items():
        save(net.state_dict(), tmp_path / name)
    first, second = (checkpoint.load(tmp_path / name)[0] for name in FORMATS)
    assert first.keys() == second.keys()
    assert all(np.array_equal(array, second[name]) for name, array in first.items())


def expected_logits(net: ResNet, images: np.ndarray, preparation: Preparation) -> np.ndarray:
    """Return torchvision's logits, with the user's normalisation."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preparation.mean, preparation.std))
    with torch.inference_mode():
        return net((torch.from_numpy(images) / 255 - mean) / std).numpy()


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_the_table_of_tensors_is_torchvisions(depth: int, stem: str) -> None:
    """The table has the names and shapes of torchvision's state dict, and they reveal depth, stem and classes."""
    architecture = Architecture(depth, stem, STEMS[stem].has_max_pool, 7)
    with torch.device("meta"):
        found = {name: tuple(tensor.shape) for name, tensor in resnet(architecture).state_dict().items()}
    assert shapes(architecture) == found
    assert detect(found) == architecture


@pytest.mark.parametrize("side", [32, 45, 64])
@pytest.mark.parametrize(("name", "tolerance"), [("fp32-cpu", 1e-4), ("int8-dynamic", 0.1)])
def test_it_answers_as_torchvision(net: ResNet, path: Path, side: int, name: str, tolerance: float) -> None:
    """With both stems and odd sizes, logits equal torchvision's within rounding."""
    preparation = Preparation(side, IMAGENET.mean, IMAGENET.std)
    engine = loading.load(name, threads=1, checkpoint=path, preparation=preparation)
    images = preprocess.resized(cifar10.sample()[0][:6], side)
    expected = expected_logits(net, images, preparation)
    assert engine.info.architecture == SENTENCES[net.stem]
    assert np.abs(engine.run(images).logits - expected).max() < tolerance * np.abs(expected).max()


def test_int8_is_calibrated_at_load(net: ResNet, path: Path, own_cache: Path) -> None:
    """Without a calibration INT8 calibrates on the sample, to noise 20 dB below its logits, and caches the ranges.

    Without VNNI weights have 7 bits, which doubles their rounding: 17 dB.
    """
    preparation = Preparation(45, IMAGENET.mean, IMAGENET.std)
    engine = loading.load("int8", threads=1, checkpoint=path, preparation=preparation)
    images = preprocess.resized(cifar10.sample()[0][:20], 45)
    expected, found = expected_logits(net, images, preparation), engine.run(images).logits
    assert (sqnr(expected, found) or 0) > (20 if machine.has_vnni() else 17)
    (kept,) = own_cache.glob("calibration-*")
    written = kept.stat().st_mtime_ns
    again = loading.load("int8", threads=1, checkpoint=path, preparation=preparation)
    assert np.array_equal(again.run(images).logits, found)
    assert kept.stat().st_mtime_ns == written
    assert again.info.calibration_sha256 == engine.info.calibration_sha256


@pytest.mark.parametrize("name", ["fp32-cpu", "int8", "int8-dynamic"])
def test_it_passes_the_selftest(net: ResNet, path: Path, name: str) -> None:
    """The self-test computes the reference of weights without one; engines pass it, a spoilt one fails."""
    preparation = OWN[net.stem]
    engine = loading.load(name, threads=1, checkpoint=path, preparation=preparation)
    assert selftest.examine(engine, path, preparation).agreement > 0.5
    with pytest.raises(reference.SelfTestFailed, match="too far from"):
        selftest.examine(Spoilt(engine, np.zeros_like), path, preparation)


@ONE_STEM
def test_a_folder_of_images_calibrates(net: ResNet, path: Path, tmp_path: Path) -> None:
    """INT8 is calibrated on the user's images, of any size; other images give other ranges."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index, image in enumerate(cifar10.sample()[0][:8]):
        Image.fromarray(image.transpose(1, 2, 0)).resize((50, 40)).save(folder / f"{index}.png")
    mine = Preparation(32, IMAGENET.mean, IMAGENET.std, folder)
    theirs = Preparation(32, IMAGENET.mean, IMAGENET.std)
    infos = [loading.load("int8", threads=1, checkpoint=path, preparation=p).info for p in (mine, theirs)]
    assert infos[0].calibration_sha256 != infos[1].calibration_sha256


@ONE_STEM
def test_a_folder_without_images_is_refused(net: ResNet, path: Path, tmp_path: Path) -> None:
    """Without a picture to calibrate on INT8 does not load, and the error names the folder."""
    preparation = Preparation(32, IMAGENET.mean, IMAGENET.std, tmp_path / "images")
    with pytest.raises(CheckpointError, match=r"images: expected at least one PNG, JPEG or WebP picture"):
        loading.load("int8", threads=1, checkpoint=path, preparation=preparation)


@ONE_STEM
def test_an_unusable_cache_is_a_warning(
    net: ResNet, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """INT8 loads although its ranges cannot be cached, with a warning."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        loading.load("int8", threads=1, checkpoint=path, preparation=OWN[net.stem])
    assert "will be made again at every start" in caplog.text


@ONE_STEM
def test_a_cache_without_permission_is_no_error(net: ResNet, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """INT8 loads although the cache may not be read."""

    def forbidden(place: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(calibration, "load", forbidden)
    monkeypatch.setattr(machine, "has_vnni", lambda: True)  # without it there is another note
    info = loading.load("int8", threads=1, checkpoint=path, preparation=OWN[net.stem]).info
    assert info.notes == ("ranges of the 300 bundled images, which are of CIFAR-10's test set",)


def test_a_card_says_what_images_it_takes(net: ResNet, path: Path) -> None:
    """Size and normalisation come from the user's card, for engine and `inspect`; flags override it."""
    card = {"input_size": 45, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    path.with_suffix(".json").write_text(json.dumps(card))
    assert loading.load("fp32-cpu", threads=1, checkpoint=path).info.input_size == inspect(path).input_size == 45
    engine = loading.load("fp32-cpu", threads=1, checkpoint=path, preparation=Preparation(input_size=64))
    assert (engine.info.input_size, engine.info.mean) == (64, (0.5, 0.5, 0.5))


def test_the_bundled_network_can_read_larger_images(own_cache: Path) -> None:
    """Another size than the stored calibration's makes another calibration, and another reference."""
    preparation = Preparation(input_size=40)
    engine = loading.load("int8", threads=1, preparation=preparation)
    assert selftest.examine(engine, None, preparation).agreement > 0.9
    assert sorted(place.name.partition("-")[0] for place in own_cache.iterdir()) == ["calibration", "reference"]


@pytest.mark.parametrize("name", ["own.pt", "own.safetensors"])
def test_an_unknown_preparation_is_asked_for(name: str, tmp_path: Path) -> None:
    """A 7x7 stem without size and normalisation is an error that names the flags and the card."""
    place = tmp_path / name
    (torch.save if place.suffix == ".pt" else save_file)(resnet18("plain").state_dict(), place)
    with pytest.raises(CheckpointError, match=r"give --input-size, --mean and --std, or a card"):
        loading.load("fp32-cpu", checkpoint=place)


def test_it_does_not_fit(tmp_path: Path) -> None:
    """A head of another width is an error with names and shapes, in `inspect` and at load."""
    net = resnet18()
    net.fc = torch.nn.Linear(100, 10)
    save_file(net.state_dict(), tmp_path / "own.safetensors")
    torch.save(net.state_dict(), tmp_path / "own.pt")
    differs = r"fc.weight is \(10, 100\), expected \(10, 512\)"
    for place in (tmp_path / "own.safetensors", tmp_path / "own.pt"):
        with pytest.raises(CheckpointError, match=differs):
            loading.load("fp32-cpu", checkpoint=place)
    with pytest.raises(CheckpointError, match=differs):
        inspect(tmp_path / "own.safetensors")


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"input_size": "224"}, "input size: expected a whole number from 16 to 512, got '224'"),
        ({"input_size": 8}, "input size: expected a whole number"),
        ({"input_size": 0}, "input size: expected a whole number"),
        ({"input_size": 32.0}, "input size: expected a whole number"),
        ({"mean": []}, "mean: expected three numbers"),
        ({"mean": [0.5, 0.5]}, "mean: expected three numbers"),
        ({"mean": [124, 116, 104]}, "mean: expected three numbers, on the scale 0 to 1"),
        ({"std": [0, 1, 1]}, "std: expected three numbers"),
        ({"std": 0.5}, "images of the checkpoint"),
    ],
)
def test_impossible_images_are_refused(tmp_path: Path, card: dict, words: str) -> None:
    """An impossible size or normalisation on a card is an error that says what is expected."""
    save_file(resnet18().state_dict(), tmp_path / "own.safetensors")
    (tmp_path / "own.json").write_text(json.dumps(card))
    for read in (inspect, lambda place: loading.load("fp32-cpu", checkpoint=place)):
        with pytest.raises(CheckpointError, match=words):
            read(tmp_path / "own.safetensors")


def test_many_differences_are_counted() -> None:
    """An error on another network names only the first differences and counts the others."""
    with pytest.raises(ValueError, match=r"and \d+ more$") as refused:
        detect({f"layer.{i}": (1,) for i in range(30)})
    assert len(str(refused.value)) < 800


class Evil:
    """An object whose unpickling prints."""

    def __reduce__(self) -> tuple:
        return (print, ("ran",))


@pytest.mark.parametrize("content", [Evil(), {"a": Evil()}, {"epoch": 3}, [1, 2]])
def test_pickles_without_tensors_are_refused(content: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Pickles of code or other objects without tensors are errors, and their code does not run."""
    file = io.BytesIO()
    torch.save(content, file)
    expected = r"own.pt is no state dict .*expected what torch.save\(net.state_dict"
    with pytest.raises(CheckpointError, match=expected):
        pickled.converted(file.getvalue(), "own.pt")
    assert "ran" not in capsys.readouterr().out


def legacy() -> bytes:
    """Return a state dict in torch's older format."""
    content = io.BytesIO()
    torch.save({"a": torch.ones(500)}, content, _use_new_zipfile_serialization=False)
    return content.getvalue()


@pytest.mark.parametrize(
    "data",
    [b"", b"abc", b"GGUF\3\0\0\0", b"PK\x03\x04", b"not a pickle", b"\x80\x04]\x94."]
    + [legacy()[:size] for size in (50, 200, 400, len(legacy()) - 100)],
)
def test_damaged_pickles_are_refused(data: bytes) -> None:
    """A truncated file, or one of another kind, is an error."""
    with pytest.raises(CheckpointError, match=r"own.pt is no state dict"):
        pickled.converted(data, "own.pt")
