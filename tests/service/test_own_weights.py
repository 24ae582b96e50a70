"""The real service with weights of the user's own: another stem, another size of image, no card."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import ResNet

from models import cifar10, preprocess
from models.resnet import resnet18
from tests.service.pictures import encode
from tests.service.processes import Service, running

SIDE = 64
CLASSES = [f"class {index}" for index in range(10)]
PNG = {"content-type": "image/png"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPARATION = (
    "--input-size", str(SIDE), "--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD)),
)  # fmt: skip


@pytest.fixture(scope="module")
def net() -> ResNet:
    """torchvision's own network for ten classes, its BatchNorms fitted to the sample."""
    torch.manual_seed(4)
    net = resnet18("plain")
    images = torch.from_numpy(cifar10.sample()[0][:100]).float() / 128 - 1
    with torch.no_grad():
        for _ in range(4):
            net(images)
    return net.eval()


@pytest.fixture(scope="module")
def service(net: ResNet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("own")
    place = folder / "own.pt"
    torch.save(net.state_dict(), place)
    place.with_suffix(".json").write_text(json.dumps({"classes": CLASSES}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        flags = ("--variants", "fp32,int8", "--threads", "1", "--max-batch-size", "4")
        with running(*flags, "--checkpoint", str(place), *PREPARATION) as service:
            yield service


@pytest.mark.parametrize(("variant", "sqnr"), [("fp32", 80), ("int8", 20)])
@pytest.mark.parametrize("kind", ["png", "raw"])
def test_it_answers_as_torchvision(service: Service, net: ResNet, variant: str, sqnr: float, kind: str) -> None:
    """A picture that the service resizes, and raw pixels, get torchvision's logits up to `sqnr` dB of noise."""
    image = cifar10.sample()[0][:1]
    pixels = preprocess.resized(image, SIDE)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    with torch.inference_mode():
        expected = net((torch.from_numpy(pixels) / 255 - mean) / std).numpy()
    body = encode(image[0]) if kind == "png" else pixels.tobytes()
    headers = {"content-type": "image/png" if kind == "png" else "application/octet-stream"}
    answer = service.client.post(f"/predict/{variant}?logits=true", content=body, headers=headers)
    found = np.array(answer.json()["predictions"][0]["logits"])
    assert 10 * np.log10((expected**2).sum() / ((found - expected) ** 2).sum()) > sqnr


def test_labels_are_the_cards(service: Service) -> None:
    """A card beside the weights names the user's own classes."""
    answer = service.client.post("/predict/fp32", content=encode(cifar10.sample()[0][0]), headers=PNG).json()
    prediction = answer["predictions"][0]
    assert prediction["label"] == CLASSES[prediction["class_index"]]


def test_the_card_says_what_it_is(service: Service) -> None:
    """/variants has the input size, the normalisation and the detected stem of each variant."""
    for card in service.client.get("/variants").json()["variants"]:
        assert (card["input_size"], card["mean"], card["std"]) == (SIDE, list(MEAN), list(STD))
        assert "7x7 stride-2 stem" in card["architecture"]


def test_the_protocol_says_what_it_takes(service: Service) -> None:
    """Under /v2 the metadata has the size of image, and a tensor of that size is answered as /predict answers."""
    (entry,) = service.client.get("/v2/models/resnet18-int8").json()["inputs"]
    assert entry["shape"] == [-1, 3, SIDE, SIDE]
    pixels = preprocess.resized(cifar10.sample()[0][:1], SIDE)
    tensor = {"name": "images", "shape": [1, 3, SIDE, SIDE], "datatype": "UINT8", "data": pixels.ravel().tolist()}
    found = service.client.post("/v2/models/resnet18-int8/infer", json={"inputs": [tensor]}).json()["outputs"][0][
        "data"
    ]
    raw = {"content-type": "application/octet-stream"}
    answer = service.client.post("/predict/int8?logits=true", content=pixels.tobytes(), headers=raw).json()
    assert found == answer["predictions"][0]["logits"]


def test_raw_pixels_of_another_size_are_refused(service: Service) -> None:
    """The error gives the length that this network needs."""
    answer = service.client.post(
        "/predict/int8", content=bytes(3072), headers={"content-type": "application/octet-stream"}
    )
    assert (answer.status_code, f"N x {3 * SIDE * SIDE} bytes" in answer.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    ("width", "stem", "words"),
    [
        (100, "cifar", "fc.weight is (10, 100), expected (10, 512)"),
        (512, "plain", "give --input-size, --mean and --std"),
    ],
)
def test_what_does_not_fit_stops_the_start(tmp_path: Path, width: int, stem: str, words: str) -> None:
    """Another head, or an unknown preparation, ends the start with exit code 1 and a sentence."""
    net = resnet18(stem)
    net.fc = torch.nn.Linear(width, 10)
    place = tmp_path / "own.safetensors"
    save_file(net.state_dict(), place)
    command = [sys.executable, "-m", "service", "--port", "0", "--checkpoint", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
