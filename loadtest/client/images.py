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


class ImagesError(Exception):
    """The file of labelled images is missing or has the wrong content."""


@dataclass(frozen=True)
class LabelledImages:
    """Images with their classes: `pixels` is `[N, 3, 32, 32] uint8` RGB, `labels` is `[N] int64`."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sha256(self) -> str:
        """The hash of pixels and labels; equal for two runs that send the same images."""
        return hashlib.sha256(self.pixels.tobytes() + self.labels.tobytes()).hexdigest()


def read(path: Path | None) -> LabelledImages:
    """Return the images of an `.npz` file with the arrays `images` and `labels`; without a path, the bundled images.

    Raises:
        ImagesError: the file is missing, is no `.npz`, or an array is missing or has the wrong shape or type.
    """
    path = path or DEFAULT_FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            pixels, labels = file["images"], file["labels"]
    except FileNotFoundError:
        raise ImagesError(f"{path} is missing: name a file of labelled images with --images FILE.npz") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ImagesError(f"{path} is not an .npz file with the arrays images and labels ({error})") from None
    if pixels.ndim != 4 or pixels.shape[1:] != (3, 32, 32) or pixels.dtype != np.uint8 or not len(pixels):
        raise ImagesError(f"{path}: images must be [N, 3, 32, 32] uint8, not {list(pixels.shape)} {pixels.dtype}")
    if labels.shape != (len(pixels),) or not np.issubdtype(labels.dtype, np.integer):
        raise ImagesError(f"{path}: labels must be [{len(pixels)}] integers, not {list(labels.shape)} {labels.dtype}")
    return LabelledImages(pixels, labels.astype(np.int64))


@dataclass(frozen=True)
class Bodies:
    """The request bodies: request `n` of an arm sends `bodies[n % len(bodies)]`.

    `members[i]` are the indices of the images in `bodies[i]`.
    """

    content_type: str
    bodies: list[bytes]
    members: list[NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.bodies)


def bodies(images: LabelledImages, kind: str, images_per_request: int, seed: int) -> Bodies:
    """Return every request body once, in seeded order.

    The images repeat until a body would begin with the first image again, so each image is in equally many bodies.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    count = len(order) // math.gcd(len(order), images_per_request)
    members = list(np.resize(order, (count, images_per_request)))
    if kind == "raw":
        return Bodies("application/octet-stream", [images.pixels[m].tobytes() for m in members], members)
    encoded = [_png(pixels) for pixels in images.pixels]
    if images_per_request == 1:
        return Bodies("image/png", [encoded[m[0]] for m in members], members)
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    return Bodies(content_type, [_multipart([encoded[i] for i in m]) for m in members], members)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(file, "PNG")
    return file.getvalue()


def _multipart(files: list[bytes]) -> bytes:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="image.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    return b"".join(head + file + b"\r\n" for file in files) + f"--{BOUNDARY}--\r\n".encode()
