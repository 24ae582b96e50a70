"""The client of an Open Inference Protocol server: what its models are, and how they are asked."""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import TypeAdapter, ValidationError

from loadtest.client.connection import Connection
from loadtest.client.description import Description, VariantInfo
from loadtest.client.images import LabelledImages, bodies
from loadtest.client.server import Hints, ServerError, fetch
from loadtest.client.tensors import FORMS, NUMBERS, Content, Output
from loadtest.client.wire import Wire
from loadtest.plan import Arm
from loadtest.targets import DATATYPES, ENCODINGS, PIXEL_TYPES, Target, Tensor

CHANNELS = 3
LIVE = "/v2/health/live"
HINTS = Hints("is there such a model?", "start the server")
SHOWN = 200
"""The most characters of a server's error that a reason repeats."""


class Unusable(Exception):
    """A model that cannot be asked; the text says why."""


@dataclass(frozen=True)
class Model:
    """The metadata of a model, as far as it is used."""

    name: str
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    platform: str = ""
    versions: tuple[str, ...] = ()


MODEL = TypeAdapter(Model)


@dataclass(frozen=True)
class Server:
    """A running server of the protocol."""

    target: Target

    def describe(self) -> Description:
        """Return the server's models in the form of `GET /variants`, the first one as reference of the others.

        Raises:
            ServerError: the server cannot be reached, or its answer is not understood.
        """
        said = fetch(self.target.url + "/v2", HINTS)
        try:
            service = dict(json.loads(said))
        except (ValueError, TypeError) as error:
            place = f"{self.target.url}/v2"
            raise ServerError(f"{place} is not an answer of the Open Inference Protocol ({error})") from None
        classes = {"classes": list(self.target.classes)} if self.target.classes else {}
        return Description(tuple(map(self._row, self.target.models)), classes, service)

    def _row(self, name: str) -> VariantInfo:
        reference = self.target.models[0] if name != self.target.models[0] else None
        try:
            model = self.model(name)
            fetch(f"{self.target.url}/v2/models/{name}/ready", HINTS)
        except ServerError as error:
            return VariantInfo(name, "unavailable", str(error), reference)
        version = ", ".join(model.versions)
        tensors = {"inputs": [words(one) for one in model.inputs], "outputs": [words(one) for one in model.outputs]}
        backend = model.platform or None
        return VariantInfo(name, "ready", None, reference, backend=backend, model_version=version, other=tensors)

    def model(self, name: str) -> Model:
        """Return the metadata of a model.

        Raises:
            ServerError: the server cannot be reached, has no such model, or its answer is not understood.
        """
        place = f"{self.target.url}/v2/models/{name}"
        try:
            return MODEL.validate_json(fetch(place, HINTS))
        except ValidationError as error:
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise ServerError(f"{place} is no metadata of the Open Inference Protocol ({reason})") from None


def words(tensor: Tensor) -> str:
    """Return a tensor in words, such as `images UINT8 [-1, 3, 32, 32]`."""
    return f"{tensor.name} {tensor.datatype} {list(tensor.shape)}"


def wire(
    server: Server, arm: Arm, images: LabelledImages, members: Sequence[NDArray[np.int64]], timeout: float
) -> tuple[Wire, str]:
    """Return the wire of a model, and its input in words.

    The input travels in the first form, binary or JSON, that the server answers with classes, or in the one that the
    target names.

    Raises:
        ServerError: the server cannot be reached.
        Unusable: the model's input cannot hold the images, or it does not answer them.
    """
    model = server.model(arm.variant)
    layout = Layout(chosen(server.target, model), len(members[0]))
    contents = list(layout.contents(images, members, server.target))
    output = Output(server.target.output, server.target.classes or images.classes, len(members[0]))
    reasons = []
    tensors = [layout.tensor(each) for each in contents]
    for form in FORMS if not server.target.encoding else [FORMS[ENCODINGS.index(server.target.encoding)]]:
        encoded = form.encoded(tensors, contents, output.name)
        path, types = f"/v2/models/{arm.variant}/infer", [encoded.content_type] * len(encoded.bodies)
        made = Wire(server.target.url, LIVE, path, encoded.headers, types, encoded.bodies, output)
        if not (reason := refusal(made, timeout)):
            return made, f"{words(tensors[0])} as {form.name}"
        reasons.append(f"{form.name}: {reason}")
    raise Unusable(f"it does not answer {words(layout.input)} ({'; '.join(reasons)})")


def refusal(made: Wire, timeout: float) -> str:
    """Return why a server does not answer the first request with classes; empty if it does."""
    connection = Connection(made.url, timeout)
    answer = connection.exchange(made.request(0))
    connection.close()
    record = made.record(0, None, answer)
    said = answer.content[:SHOWN].decode(errors="replace")
    return record.error and f"{record.error}: {said}".removesuffix(": ")


def chosen(target: Target, model: Model) -> Tensor:
    """Return the input that takes the images.

    Raises:
        Unusable: there is none, or there are several.
    """
    inputs = (target.input,) if target.input else model.inputs
    if len(inputs) != 1:
        stated = "; ".join(map(words, inputs)) or "none"
        raise Unusable(f"one input is needed, and the metadata states {stated}: --input names it")
    if inputs[0].datatype not in DATATYPES:
        raise Unusable(f"the input {words(inputs[0])} takes no images: {', '.join(DATATYPES)} do")
    return inputs[0]


@dataclass(frozen=True)
class Layout:
    """The input of a model for requests of `images` images each."""

    input: Tensor
    images: int

    def __post_init__(self) -> None:
        """Check that the input takes so many images.

        Raises:
            Unusable: it does not.
        """
        if self._most not in (-1, self.images):
            raise Unusable(f"the input {words(self.input)} does not take {self.images} images (--images-per-request)")
        if not self._is_bytes and (len(self.input.shape) not in (3, 4) or self._channels not in (CHANNELS, -1)):
            raise Unusable(f"the input {words(self.input)} is no tensor of images with {CHANNELS} channels")

    def tensor(self, content: Content) -> Tensor:
        """Return the input with the shape of its content."""
        if isinstance(content, np.ndarray):
            return replace(self.input, shape=content.shape)
        return replace(self.input, shape=(self.images, *(1 for _ in self.input.shape[1:])))

    def contents(
        self, images: LabelledImages, members: Sequence[NDArray[np.int64]], target: Target
    ) -> Iterator[Content]:
        """Yield the content of each request: encoded images, or normalised pixels in the model's order and size."""
        if self._is_bytes:
            encoded = encodings(images)
            yield from ([encoded[index] for index in each] for each in members)
            return
        pixels = resized(images, self._size)
        for each in members:
            yield self._arranged(normalised(pixels[each], self.input.datatype, target))

    @property
    def _is_bytes(self) -> bool:
        return self.input.datatype not in PIXEL_TYPES

    @property
    def _has_batch(self) -> bool:
        return self._is_bytes or len(self.input.shape) == 4

    @property
    def _most(self) -> int:
        """The images that a request may hold; -1 for any number."""
        return self.input.shape[0] if self._has_batch and self.input.shape else 1

    @property
    def _channels(self) -> int:
        return self.input.shape[-1 if self._is_channel_last else -3]

    @property
    def _is_channel_last(self) -> bool:
        sizes = self.input.shape[-3:]
        return sizes[0] != CHANNELS and sizes[-1] == CHANNELS

    @property
    def _size(self) -> tuple[int, int]:
        """Height and width; -1 for any."""
        sizes = self.input.shape[-3:]
        return (sizes[0], sizes[1]) if self._is_channel_last else (sizes[1], sizes[2])

    def _arranged(self, pixels: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return `[N, 3, H, W]` in the order of the input."""
        ordered = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if self._is_channel_last else pixels
        return ordered if self._has_batch else ordered[0]


def encodings(images: LabelledImages) -> list[bytes]:
    """Return every image in an encoded form."""
    single = bodies(images, "png", 1, 0)
    by_index = {int(each[0]): body for each, body in zip(single.members, single.bodies, strict=True)}
    return [by_index[index] for index in range(len(images))]


def resized(images: LabelledImages, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return `[N, 3, H, W]` of the given height and width (-1: as they are).

    The largest centred part with the sides' ratio is resized with Pillow's bilinear filter.

    Raises:
        Unusable: the images have several sizes, and the input takes any.
    """
    if images.pixels is not None and size in ((-1, -1), images.pixels.shape[2:]):
        return images.pixels
    pictures = [picture(images, index) for index in range(len(images))]
    if -1 in size and len({each.size for each in pictures}) > 1:
        raise Unusable("the images have several sizes, and the input takes any: --input states one")
    height, width = (old if new == -1 else new for new, old in zip(size, pictures[0].size[::-1], strict=True))
    made = [np.asarray(ImageOps.fit(each, (width, height), Image.Resampling.BILINEAR)) for each in pictures]
    return np.stack(made).transpose(0, 3, 1, 2)


def picture(images: LabelledImages, index: int) -> Image.Image:
    """Return one of the images, in RGB and the right way up."""
    if images.pixels is not None:
        return Image.fromarray(np.ascontiguousarray(images.pixels[index].transpose(1, 2, 0)))
    return ImageOps.exif_transpose(Image.open(io.BytesIO(images.files[index].content))).convert("RGB")


def normalised(pixels: NDArray[np.uint8], datatype: str, target: Target) -> NDArray[np.generic]:
    """Return pixels from 0 to 255 in a type, normalised if the target states a mean and a standard deviation."""
    kind = np.dtype(NUMBERS[datatype])
    if not target.mean:
        return pixels.astype(kind)
    if kind.kind != "f":
        raise Unusable(f"--mean and --std belong to FP32 and FP16, and the input is {datatype}")
    mean, std = (np.reshape(np.array(numbers, np.float32), (-1, 1, 1)) for numbers in (target.mean, target.std))
    return ((pixels / np.float32(255) - mean) / std).astype(kind)
