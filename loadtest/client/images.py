"""The labelled images that every arm sends, and the request bodies made of them in seeded order."""

import hashlib
import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DEFAULT_FILE = Path(__file__).resolve().parents[2] / "models" / "weights" / "sample.npz"
BOUNDARY = "loadtest-image-boundary"
KINDS = ("png", "raw")
UNLABELLED = -1
"""The label of an image whose class the service does not know."""


class ImagesError(Exception):
    """The labelled images are missing, have the wrong content, or do not fit the service."""


@dataclass(frozen=True)
class File:
    """One encoded image, and the media type of its format."""

    content: bytes
    media_type: str


@dataclass(frozen=True)
class LabelledImages:
    """Images with their classes, as pixels or as the files of a folder."""

    pixels: NDArray[np.uint8] | None
    """`[N, 3, S, S] uint8` RGB; None for files, which are sent as they are."""
    labels: NDArray[np.int64]
    """`[N]`, indices into the classes. UNLABELLED where the service does not know the class."""
    classes: tuple[str, ...] = ()
    """The names of the classes; empty if the images do not tell them."""
    files: tuple[File, ...] = ()
    left_out: tuple[str, ...] = ()
    """A sentence for each file that is not sent."""

    def __len__(self) -> int:
        return len(self.labels)

    def formats(self, kind: str) -> tuple[str, ...]:
        """Return how the images are sent if the bodies are of this kind: `raw`, or names of formats such as `png`."""
        return tuple(sorted({file.media_type.removeprefix("image/") for file in self.files})) or (kind,)

    @property
    def sha256(self) -> str:
        """The hash of images and labels; equal for two runs that send the same images."""
        content = self.pixels.tobytes() if self.pixels is not None else b"".join(file.content for file in self.files)
        return hashlib.sha256(content + self.labels.tobytes()).hexdigest()


def from_npz(path: Path | None) -> LabelledImages:
    """Return the images of an `.npz` file with the arrays `images`, `labels` and, if it has it, `classes`.

    Without a path, these are the bundled images.

    Raises:
        ImagesError: the file is missing, is no `.npz`, or an array is missing or has the wrong shape or type.
    """
    path = path or DEFAULT_FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            pixels, labels = file["images"], file["labels"]
            classes = tuple(map(str, file["classes"])) if "classes" in file else ()
    except FileNotFoundError:
        raise ImagesError(
            f"{path} is missing: name a file or a folder of labelled images with --images FILE.npz or --images FOLDER"
        ) from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ImagesError(f"{path} is not an .npz file with the arrays images and labels ({error})") from None
    shape = pixels.shape
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or pixels.dtype != np.uint8 or not pixels.size:
        raise ImagesError(f"{path}: images must be [N, 3, S, S] uint8, not {list(shape)} {pixels.dtype}")
    if labels.shape != (len(pixels),) or not np.issubdtype(labels.dtype, np.integer):
        raise ImagesError(f"{path}: labels must be [{len(pixels)}] integers, not {list(labels.shape)} {labels.dtype}")
    if classes and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ImagesError(f"{path}: labels must be from 0 to {len(classes) - 1}, one less than the number of classes")
    return LabelledImages(pixels, labels.astype(np.int64), classes)


@dataclass(frozen=True)
class Bodies:
    """The request bodies: request `n` of an arm sends `bodies[n % len(bodies)]`.

    `content_types[i]` belongs to `bodies[i]`, and `members[i]` are the indices of the images in it.
    """

    content_types: list[str]
    bodies: list[bytes]
    members: list[NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.bodies)


def bodies(images: LabelledImages, kind: str, images_per_request: int, seed: int) -> Bodies:
    """Return every request body once, in seeded order.

    The images repeat until a body would begin with the first image again, so each image is in equally many bodies.

    Raises:
        ImagesError: raw pixels are asked for, and the images are files.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    count = len(order) // math.gcd(len(order), images_per_request)
    members = list(np.resize(order, (count, images_per_request)))
    if kind == "raw":
        if images.pixels is None:
            raise ImagesError("--payload raw sends pixels, and a folder holds files: name an .npz file with --images")
        contents = [images.pixels[m].tobytes() for m in members]
        return Bodies(["application/octet-stream"] * count, contents, members)
    files = images.files if images.pixels is None else [_png(pixels) for pixels in images.pixels]
    if images_per_request == 1:
        sent = [files[m[0]] for m in members]
        return Bodies([file.media_type for file in sent], [file.content for file in sent], members)
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    return Bodies([content_type] * count, [_multipart([files[i] for i in m]) for m in members], members)


def _png(pixels: NDArray[np.uint8]) -> File:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(file, "PNG")
    return File(file.getvalue(), "image/png")


def _multipart(files: list[File]) -> bytes:
    return b"".join(_part(file) for file in files) + f"--{BOUNDARY}--\r\n".encode()


def _part(file: File) -> bytes:
    name = file.media_type.replace("/", ".")
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        f"Content-Type: {file.media_type}\r\n\r\n"
    )
    return head.encode() + file.content + b"\r\n"
