"""The load test's client of the Open Inference Protocol, against a small server of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from loadtest.client.connection import Connection
from loadtest.client.images import File, LabelledImages, bodies
from loadtest.client.server import ServerError, choose
from loadtest.client.v2 import Server, Unusable, resized, wire
from loadtest.client.wire import predict
from loadtest.plan import Arm
from loadtest.report.schema import read
from loadtest.targets import Target, Tensor
from tests.loadtest.fake_v2 import NAMES, Fake, serving
from tests.service.processes import Service

PIXELS = np.random.default_rng(3).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
IMAGES = LabelledImages(PIXELS, (PIXELS[:, 0, 0, 0] % 10).astype(np.int64))


def classes(url: str, images_per_request: int = 1, **fields: object) -> tuple[list[tuple[int, ...]], str]:
    """Return the answers to all requests that the model `net` is sent, and its input in words."""
    target = Target("", url, "v2", ("net",), **fields)
    (arm,), _ = choose(target, Server(target).describe(), ())
    made, asked = wire(Server(target), arm, IMAGES, bodies(IMAGES, "raw", images_per_request, 0).members, 5.0)
    connection = Connection(url, 5.0)
    records = [made.record(n, None, connection.exchange(made.request(n))) for n in range(len(made.bodies))]
    connection.close()
    assert {record.error for record in records} == {""}
    return [record.answer for record in records], asked


def right(images_per_request: int = 1) -> list[tuple[int, ...]]:
    """Return the right answers."""
    members = bodies(IMAGES, "raw", images_per_request, 0).members
    return [tuple(int(label) for label in IMAGES.labels[each]) for each in members]


@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("tells", ["logits", "index", "label", "ranked"])
@pytest.mark.parametrize(("datatype", "shape"), [("UINT8", (-1, 3, 32, 32)), ("BYTES", (-1, 1))])
def test_classes_come_out_of_any_output(datatype: str, shape: tuple[int, ...], tells: str, is_binary: bool) -> None:
    """Logits, indices, names of classes and Triton's `value:index:label`, of pixels and of encoded images."""
    with serving({"net": Fake(datatype, shape, tells, is_binary)}) as url:
        found, asked = classes(url, images_per_request=2, classes=NAMES if tells == "label" else ())
    assert found == right(images_per_request=2)
    assert asked.endswith(" as binary" if is_binary else " as JSON")


@pytest.mark.parametrize(
    ("shape", "asked"),
    [
        ((-1, 3, 32, 32), "[1, 3, 32, 32]"),
        ((1, 3, -1, -1), "[1, 3, 32, 32]"),
        ((-1, 32, 32, 3), "[1, 32, 32, 3]"),
        ((3, 32, 32), "[3, 32, 32]"),
        ((-1, -1, -1, -1), "[1, 3, 32, 32]"),
    ],
)
def test_pixels_are_sent_in_the_order_that_the_metadata_states(shape: tuple[int, ...], asked: str) -> None:
    """Channels come first or last, with a batch dimension or without."""
    with serving({"net": Fake("FP32", shape)}) as url:
        assert classes(url) == (right(), f"pixels FP32 {asked} as binary")


@pytest.mark.parametrize("datatype", ["FP32", "FP16"])
def test_pixels_are_normalised_as_the_flags_say(datatype: str) -> None:
    """The server undoes mean 0.5 and standard deviation 0.25 and finds the bytes again."""
    with serving({"net": Fake(datatype, first=lambda value: 255 * (value * 0.25 + 0.5))}) as url:
        assert classes(url, mean=(0.5,), std=(0.25, 0.25, 0.25))[0] == right()


def test_an_input_of_the_command_line_wins() -> None:
    """`--input` names encoded images where the metadata states pixels: a server may take more than it states."""
    with serving({"net": Fake()}) as url:
        found, asked = classes(url, input=Tensor("images", "BYTES", (-1,)))
    assert (found, asked) == (right(), "images BYTES [1] as binary")


def test_images_of_another_size_are_resized() -> None:
    """A model that reads 32x16 pixels gets the middle of the images as it is."""
    assert (resized(IMAGES, (32, 16)) == PIXELS[..., 8:24]).all()
    assert resized(IMAGES, (8, -1)).shape == (6, 3, 8, 32)


def test_files_of_a_folder_become_pixels() -> None:
    """A folder's files are decoded for a model that takes pixels."""
    single = bodies(IMAGES, "png", 1, 0)
    files = {
        int(member[0]): File(body, "image/png") for member, body in zip(single.members, single.bodies, strict=True)
    }
    images = LabelledImages(None, IMAGES.labels, files=tuple(files[index] for index in range(len(IMAGES))))
    assert (resized(images, (-1, -1)) == PIXELS).all()


@pytest.mark.parametrize(
    ("model", "fields", "reason"),
    [
        (Fake(shape=(4, 3, 32, 32)), {}, "does not take 1 images"),
        (Fake(shape=(-1, 1, 32, 32)), {}, "no tensor of images with 3 channels"),
        (Fake("INT64"), {}, "takes no images"),
        (Fake(tells="label"), {}, "200 with an answer that cannot be read"),
        (Fake(), {"output": "boxes"}, "200 with an answer that cannot be read"),
        (Fake(), {"mean": (0.5,), "std": (0.5,)}, "belong to FP32"),
        (Fake(is_broken=True), {}, "JSON: 400: .*the model is broken"),
    ],
)
def test_a_model_that_cannot_be_asked_says_why(model: Fake, fields: dict[str, object], reason: str) -> None:
    """The reason names the input, or repeats the server's error."""
    with serving({"net": model}) as url, pytest.raises(Unusable, match=reason):
        classes(url, **fields)


def test_a_model_that_does_not_exist_is_left_out() -> None:
    """The other models are measured."""
    with serving({"net": Fake()}) as url:
        target = Target("theirs", url, "v2", ("net", "other"))
        arms, excluded = choose(target, Server(target).describe(), ())
    assert [(arm.name, arm.info.reference, arm.device) for arm in arms] == [("net @ theirs", None, "unknown")]
    assert [(e.name, "404" in e.reason) for e in excluded] == [("other @ theirs", True)]


def test_another_server_is_an_error() -> None:
    """Nothing answers `GET /v2` on port 1."""
    with pytest.raises(ServerError, match="start the server"):
        Server(Target("", "http://127.0.0.1:1", "v2", ("net",))).describe()


@pytest.mark.slow
def test_this_service_answers_alike_over_both_protocols(shared_calm: Service) -> None:
    """The service takes the load test's binary tensors and gives the classes that `/predict` gives."""
    model = Target("", shared_calm.url, "v2", ("resnet18-fp32",))
    (arm,), _ = choose(model, Server(model).describe(), ())
    sent = bodies(IMAGES, "raw", 3, 0)
    made, asked = wire(Server(model), arm, IMAGES, sent.members, 5.0)
    plain = predict(Arm("fp32", shared_calm.url, "fp32", arm.info), sent)
    connection = Connection(shared_calm.url, 5.0)
    over_v2, over_predict = (
        [one.record(n, None, connection.exchange(one.request(n))).answer for n in (0, 1)] for one in (made, plain)
    )
    connection.close()
    assert over_v2 == over_predict
    assert asked == "images UINT8 [3, 3, 32, 32] as binary"


@pytest.mark.slow
def test_two_servers_are_compared(images: Path, serve: Callable[..., str], loadtest, tmp_path: Path) -> None:
    """A model of another server against a variant of this one: what only this one tells is unknown, not zero."""
    ours, out = serve({"int8": {"delay": 0.010}}), tmp_path / "out"
    flags = ("--concurrency", 2, "--duration", 2, "--round", 0.4, "--settle", 0.1, "--warm-up", 0.2)
    with serving({"resnet": Fake(tells="ranked", is_binary=False, delay=0.060, wrong_below=30)}) as theirs:
        arms = (
            "--url",
            f"ours={ours}",
            "--url",
            f"theirs={theirs}",
            "--protocol",
            "theirs=v2",
            "--model",
            "theirs=resnet",
        )
        done = loadtest(*arms, "--images", images, *flags, "--out", out, "--fail-on", "images_per_second<0.9")
    assert done.returncode in (1, 3), done.stderr  # 3 if other work on the machine made the run INVALID
    report = read(out / "report.json")
    own, other = report.cells
    assert (own.arm, other.arm) == ("int8 @ ours", "resnet @ theirs")
    assert own.server.requests == own.server.requests_sent
    assert (other.server.requests, other.server.restarts, other.server.memory.process) == (None, None, None)
    assert set(other.server.phase_seconds.values()) == {None}
    assert report.comparisons[0].baseline == "int8 @ ours"
    assert 1.2 < report.comparisons[0].ratios.p50.estimate < 7
    assert report.accuracy[1].against.difference.high < 0
    notes = "\n".join(report.notes)
    assert "Asked over the Open Inference Protocol, which has no metrics: theirs. " in notes
    assert "checks for restarted workers and for requests of others were skipped" in notes
    assert "resnet @ theirs was sent pixels UINT8 [1, 3, 32, 32] as JSON." in notes
    assert "FAILED images_per_second<0.9" in done.stdout or done.returncode == 3
