"""Bodies that are small enough for the event loop hold it for a few milliseconds at most, whatever they repeat."""

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from service.decoding import IDENTITY, Received, pixels_of
from service.errors import ServiceError
from service.images import LIGHT, Heavy, Limits
from service.multipart import files_of
from service.v2.tensors import inference_of
from tests.service.pictures import png

LIMITS = Limits(max_images=256, max_pixels=2**24, cost=LIGHT)
HOLD_SECONDS = 0.02
JSON = "application/json"
FORM = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"'


def tensor(data: str, shape: str = "[1,3,32,32]", datatype: str = "UINT8") -> bytes:
    return f'{{"inputs":[{{"name":"images","datatype":"{datatype}","shape":{shape},"data":[{data}]}}]}}'.encode()


def form(middle: bytes, content: bytes = b"x") -> bytes:
    return PART + middle + b"\r\n\r\n" + content + b"\r\n--b--\r\n"


BODIES: dict[str, tuple[Callable[[Received, Limits], object], str, bytes]] = {
    "JSON arrays": (pixels_of, JSON, b"[" * 65_000),
    "JSON texts": (pixels_of, JSON, b'{"images":[' + b'"AAAA",' * 1900 + b'""]}'),
    "JSON escapes": (pixels_of, JSON, b'{"image":"' + b"\\u0041" * 10_000 + b'"}'),
    "data URL parameters": (pixels_of, JSON, b'{"image":"data:a/a' + b";a=a" * 16_000 + b'"}'),
    "parts": (pixels_of, FORM, form(b"\r\n\r\nx\r\n" + (PART + b"\r\n\r\nx\r\n") * 298)),
    "part headers": (pixels_of, FORM, form(b"\r\n" + b"x:y\r\n" * 12_000)),
    "part parameters": (pixels_of, FORM, form(b"; a=b" * 12_000)),
    "nearly boundaries": (pixels_of, FORM, form(b"", b"\r\n--" * 16_000)),
    "type parameters": (pixels_of, FORM + "; a=b" * 10_000, form(b"")),
    "numbers": (inference_of, JSON, tensor(",".join(["1"] * 32_000))),
    "nested arrays": (inference_of, JSON, tensor(",".join(["[[[[[[[1]]]]]]]"] * 4000))),
    "texts": (inference_of, JSON, tensor(",".join(['"A"'] * 15_000), "[15000]", "BYTES")),
    "sizes": (inference_of, JSON, tensor("1", f"[{','.join(['1'] * 30_000)}]")),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_repeated_structure_holds_nobody_up(name: str) -> None:
    """A body of 64 KiB that repeats a structure is answered, refused or handed on in little processor time."""
    work, media_type, body = BODIES[name]

    def cost() -> float:
        began = time.thread_time()
        with suppress(ServiceError, Heavy):
            work(Received(body, media_type, IDENTITY, None), LIMITS)
        return time.thread_time() - began

    assert len(body) <= LIGHT.encoded_bytes
    assert min(cost() for _ in range(3)) < HOLD_SECONDS


@pytest.mark.parametrize(("width", "height"), [(1, 4096), (4096, 1)])
def test_a_narrow_image_costs_whole_blocks(width: int, height: int) -> None:
    """A JPEG is decoded in squares of up to 16 pixels, so an image that is narrower counts as 16 pixels wide."""
    LIMITS.check_size(width, height, images=1)
    with pytest.raises(Heavy):
        LIMITS.check_size(width * 2, height * 2, images=1)


def test_a_long_content_type_is_refused() -> None:
    """A Content-Type is parsed up to a thousand characters."""
    with pytest.raises(ServiceError, match="at most 1000 characters"):
        files_of(FORM + "; a=b" * 200, form(b"", png(1)), "image", 3)
    assert files_of(FORM + "; a=b" * 100, form(b"", png(1)), "image", 3) == [png(1)]
