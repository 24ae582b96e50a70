"""The real service with weights of the user's own: another depth, stem, number of classes and size of image.

The network is untrained, and labelled images lie beside it, so its accuracy is suspect.
"""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import ResNet, resnet34

from models import cifar10, preprocess
from models.resnet import resnet18
from tests.service.pictures import encode
from tests.service.processes import Service, running

SIDE = 64
CLASSES = ["deer", "cat", "frog"]
PNG = {"content-type": "image/png"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPARATION = (
    "--input-size", str(SIDE), "--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD)),
)  # fmt: skip


@pytest.fixture(scope="module")
def net() -> ResNet:
    """torchvision's own network for three classes, its BatchNorms fitted to the sample."""
    torch.manual_seed(4)
    net = resnet34(num_classes=len(CLASSES))
    images = torch.from_numpy(cifar10.sample()[0][:100]).float() / 128 - 1
    with torch.no_grad():
        for _ in range(4):
            net(images)
    return net.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def service(net: ResNet, folder: Path) -> Iterator[Service]:
    place = folder / "own.pt"
    torch.save(net.state_dict(), place)
    place.with_suffix(".json").write_text(json.dumps({"classes": CLASSES, "test_accuracy": 0.9}))
    images, labels = cifar10.sample()
    known = [index for index, label in enumerate(labels) if cifar10.CLASSES[label] in CLASSES]
    own = [CLASSES.index(cifar10.CLASSES[label]) for label in labels[known]]
    np.savez(folder / "own.images.npz", images=preprocess.resized(images[known], SIDE), labels=own)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        flags = ("--variants", "fp32,int8", "--threads", "1", "--max-batch-size", "4")
        with (
            (folder / "log").open("w") as log,
            running(*flags, "--checkpoint", str(place), *PREPARATION, log=log) as service,
        ):
            yield service


@pytest.fixture
def log(service: Service, folder: Path) -> list[dict[str, Any]]:
    """Return the lines of the service's log."""
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


@pytest.mark.parametrize(("variant", "sqnr"), [("fp32", 80), ("int8", 15)])
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


def test_a_suspect_accuracy_is_told(service: Service, log: list[dict[str, Any]]) -> None:
    """An untrained network that claims 90 % is warned of in the log, in /variants and by a metric, and it serves."""
    told = [line["message"] for line in log if line["level"] == "warning" and "normalisation" in line["message"]]
    for card in service.client.get("/variants").json()["variants"]:
        sample, name = card["sample"], card["name"]
        assert (sample["images"], sample["claimed"], sample["source"]) == (90, 0.9, "own.images.npz")
        assert "Is the normalisation right? Assumed: mean 0.485, 0.456, 0.406 (--mean)" in sample["warning"]
        assert f"{name}: {sample['warning']}" in told
        assert service.sample("precision_sample_accuracy_suspect", variant=name) == 1
        assert service.sample("precision_sample_accuracy_ratio", variant=name) == sample["accuracy"]


@pytest.mark.parametrize("path", ["/predict/fp32", "/compare"])
def test_no_more_classes_than_there_are(service: Service, path: str) -> None:
    """top_k goes up to the number of classes; beyond, the error and /openapi.json give the bound."""
    body = encode(cifar10.sample()[0][0])
    assert service.client.post(f"{path}?top_k=3", content=body, headers=PNG).status_code == 200
    answer = service.client.post(f"{path}?top_k=4", content=body, headers=PNG)
    assert (answer.status_code, answer.json()["detail"]) == (422, "top_k: the network has 3 classes, so at most 3")
    described = service.client.get("/openapi.json").json()["paths"][path.replace("fp32", "{variant}")]["post"]
    (bound,) = [one["schema"]["maximum"] for one in described["parameters"] if one["name"] == "top_k"]
    assert bound == 3


def test_samples_are_the_users_own(service: Service) -> None:
    """The page offers ten of the labelled images, of every class, and each picture has its pixels."""
    samples = service.client.get("/page/samples.json").json()
    assert [sample["label"] for sample in samples] == ["deer"] * 4 + ["cat"] * 3 + ["frog"] * 3
    picture = service.client.get(samples[0]["path"])
    assert Image.open(io.BytesIO(picture.content)).size == (SIDE, SIDE)


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
    """Under /v2 name and shapes are the network's own, and a tensor of that shape is answered as /predict answers."""
    assert service.client.get("/v2/models/resnet18-int8").status_code == 404
    described = service.client.get("/v2/models/resnet34-int8").json()
    assert [tensor["shape"] for tensor in described["inputs"] + described["outputs"]] == [[-1, 3, SIDE, SIDE], [-1, 3]]
    pixels = preprocess.resized(cifar10.sample()[0][:1], SIDE)
    tensor = {"name": "images", "shape": [1, 3, SIDE, SIDE], "datatype": "UINT8", "data": pixels.ravel().tolist()}
    found = service.client.post("/v2/models/resnet34-int8/infer", json={"inputs": [tensor]}).json()["outputs"][0][
        "data"
    ]
    raw = {"content-type": "application/octet-stream"}
    answer = service.client.post("/predict/int8?logits=true", content=pixels.tobytes(), headers=raw).json()
    assert found == answer["predictions"][0]["logits"]


def test_the_protocol_classifies_up_to_all_classes(service: Service) -> None:
    """The classification extension gives as many texts as there are classes; more is a 400 that gives the bound."""
    tensor = {"name": "images", "shape": [1, 3, SIDE, SIDE], "datatype": "UINT8", "data": [0] * (3 * SIDE * SIDE)}

    def infer(count: int) -> httpx.Response:
        output = {"name": "logits", "parameters": {"classification": count}}
        return service.client.post("/v2/models/resnet34-fp32/infer", json={"inputs": [tensor], "outputs": [output]})

    texts = infer(3).json()["outputs"][0]["data"]
    assert sorted(text.rsplit(":")[-1] for text in texts) == sorted(CLASSES)
    assert infer(4).status_code == 400
    assert infer(4).json() == {"error": "classification is 4, and the network has 3 classes, so at most 3"}


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
