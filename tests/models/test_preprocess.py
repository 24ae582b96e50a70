"""The input path: each picture gives exact pixels, in training, evaluation and service."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms

from models.engines.tensors import mean_and_scale
from models.preprocess import resized, to_pixels
from models.topology import Input
from models.training.augment import augment, cut_mix, normalise
from service import images

FILES = Path(__file__).parent / "pictures"


def ramp(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Return a picture without symmetry, `[height, width, channels] uint8`."""
    y, x, c = np.ogrid[:height, :width, :channels]
    return ((7 * y + 3 * x + 50 * c + (x * y) % 31) % 256).astype(np.uint8)


def through(image: Image.Image, kind: str = "PNG", **options: object) -> Image.Image:
    """Return the image encoded and opened again."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(buffer)


def encoded(image: Image.Image) -> bytes:
    """Return the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def rgb(height: int = 32, width: int = 32) -> Image.Image:
    """Return an RGB picture."""
    return Image.fromarray(ramp(height, width, 3))


def rotated() -> Image.Image:
    """Return a picture with EXIF orientation 6."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return through(rgb(48, 64), exif=exif)


def sixteen_bit() -> Image.Image:
    """Return a 16-bit greyscale picture of `v * 257`."""
    return through(Image.fromarray(ramp(32, 32, 1)[..., 0].astype(np.uint16) * 257))


PICTURES = {
    "rgb": lambda: through(rgb()),
    "larger": lambda: through(rgb(50, 50)),
    "wide": lambda: through(rgb(40, 90)),
    "tall": lambda: through(rgb(90, 40)),
    "small": lambda: through(rgb(8, 8)),
    "grey": lambda: through(Image.fromarray(ramp(32, 32, 1)[..., 0])),
    "alpha": lambda: through(Image.fromarray(ramp(32, 32, 4))),
    "grey alpha": lambda: through(Image.fromarray(ramp(32, 32, 2), "LA")),
    "palette": lambda: through(rgb().quantize(16)),
    "one bit": lambda: through(Image.fromarray(ramp(32, 32, 1)[..., 0] > 127)),
    "16 bit": sixteen_bit,
    "exif": rotated,
    "webp": lambda: through(rgb(), "WEBP", lossless=True),
    "jpeg": lambda: Image.open(FILES / "colour.jpg"),
    "jpeg grey": lambda: Image.open(FILES / "grey.jpg"),
    "jpeg 32x32": lambda: Image.open(FILES / "same-size.jpg"),
}
"""JPEGs are files, because encoders may differ; decoders with the exact integer transform do not."""

GOLDEN = {
    "rgb": "8f6a62632b4402bb",
    "larger": "ca8cedebfb26319f",
    "wide": "23b6eb922888a3f1",
    "tall": "0ac825e7abd2f63d",
    "small": "811fa88d364e3a27",
    "grey": "22d58fd6203575f1",
    "alpha": "2ae102543d4865d2",
    "grey alpha": "609c5851fa046a37",
    "palette": "96b3869bca4c2394",
    "one bit": "ce6236bd0724514a",
    "16 bit": "22d58fd6203575f1",
    "exif": "cc6e5da3ffef8ceb",
    "webp": "8f6a62632b4402bb",
    "jpeg": "e94b9cd0f69654ea",
    "jpeg grey": "1885abddbbda87f7",
    "jpeg 32x32": "ee3a8ace99c07b80",
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_gives_exactly_these_pixels(name: str) -> None:
    """A picture gives `[3, 32, 32] uint8` pixels with the known SHA-256."""
    pixels = to_pixels(PICTURES[name]())
    assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == ((3, 32, 32), np.uint8, True)
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == GOLDEN[name]


def test_a_larger_network_has_its_own_pixels() -> None:
    """`to_pixels` gives 48x48 pixels with the known SHA-256, and `resized` gives the same from an array."""
    pixels = to_pixels(through(rgb(50, 50)), 48)
    assert (pixels.shape, hashlib.sha256(pixels.tobytes()).hexdigest()[:16]) == ((3, 48, 48), "267e24c5212212bc")
    assert (resized(ramp(50, 50, 3).transpose(2, 0, 1)[None], 48)[0] == pixels).all()


@pytest.mark.parametrize("size", [(50, 50), (40, 90), (91, 43), (300, 224), (256, 257), (20, 150)])
@pytest.mark.parametrize(("resize", "side"), [(256, 224), (40, 32), (64, 64)])
def test_resize_and_crop_are_torchvisions(size: tuple[int, int], resize: int, side: int) -> None:
    """With `resize`, an RGB picture gives the pixels of torchvision's transforms for evaluation, to the bit."""
    picture = rgb(*size)
    transform = transforms.Compose([transforms.Resize(resize), transforms.CenterCrop(side), transforms.PILToTensor()])
    assert np.array_equal(to_pixels(picture, side, resize), transform(picture).numpy())
    decoded = images.decode(encoded(picture), images.Limits(1, 10**6, side=side, resize=resize))
    assert np.array_equal(decoded, transform(picture).numpy())


def test_a_very_long_picture_is_cut_before_it_is_resized() -> None:
    """Of a picture a hundred times as long as wide only the middle is resized, to the pixels of torchvision's."""
    picture = rgb(4, 400)
    transform = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()])
    difference = to_pixels(picture, 224, 256).astype(int) - transform(picture).numpy()
    assert np.abs(difference).max() <= 1
    with pytest.raises(images.Heavy):
        images.decode(encoded(picture), images.Limits(1, 10**6, side=224, resize=256, cost=images.LIGHT))


@pytest.mark.parametrize("name", PICTURES)
def test_the_service_reads_a_picture_in_the_same_way(name: str) -> None:
    """The service decodes a picture to the pixels that evaluation gives the network."""
    picture = PICTURES[name]()
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=picture.getexif())
    assert (images.decode(buffer.getvalue(), images.Limits(1, 10**6)) == to_pixels(PICTURES[name]())).all()


def test_training_and_engines_normalise_alike() -> None:
    """Training and engines normalise every pixel value of every channel alike, within rounding of float32."""
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    mean, scale = mean_and_scale(Input())
    assert torch.allclose(normalise(values), (values - mean) * scale, rtol=0, atol=1e-6)


def test_a_32x32_rgb_picture_is_not_touched() -> None:
    """A 32x32 RGB picture passes unchanged, channel first."""
    assert (to_pixels(through(rgb())) == ramp(32, 32, 3).transpose(2, 0, 1)).all()


def test_16_bits_are_scaled_not_clipped() -> None:
    """A 16-bit greyscale PNG of `v * 257` gives the 8-bit picture of `v`."""
    assert (to_pixels(sixteen_bit())[0] == ramp(32, 32, 1)[..., 0]).all()


def test_transparency_is_laid_over_white() -> None:
    """A fully transparent picture is white, whatever colour its pixels have."""
    assert (to_pixels(through(Image.new("RGBA", (32, 32), (255, 0, 0, 0)))) == 255).all()


def test_exif_rotation_is_applied() -> None:
    """EXIF orientation 6 turns the picture by 90 degrees clockwise."""
    turned = rgb(48, 64).transpose(Image.Transpose.ROTATE_270)
    assert (to_pixels(rotated()) == to_pixels(turned)).all()


def test_a_wide_picture_is_cut_to_its_centre() -> None:
    """Pixels outside the centred square do not matter."""
    wide = ramp(32, 96, 3)
    wide[:, :32], wide[:, 64:] = 0, 255
    assert (to_pixels(through(Image.fromarray(wide))) == ramp(32, 96, 3)[:, 32:64].transpose(2, 0, 1)).all()


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_a_jpeg_is_close_to_its_original(mode: str) -> None:
    """A JPEG in RGB, CMYK or greyscale gives nearly the pixels of its original."""
    smooth = Image.fromarray(np.kron(ramp(4, 4, 3), np.ones((8, 8, 1), np.uint8)) // 2 + 60).convert(mode)
    pixels = to_pixels(through(smooth, "JPEG", quality=98, subsampling=0))
    assert np.abs(pixels.astype(int) - to_pixels(smooth.convert("RGB")).astype(int)).mean() < 4


def test_cutout_takes_one_square_of_an_otherwise_equal_image() -> None:
    """Cutout sets 9 x 9 pixels to the mean and changes no other; equal generators cut equal squares."""
    pixels = torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    flip = torch.zeros(len(pixels), dtype=torch.bool)
    whole, cut, again = (augment(pixels, flip, 4, cutout, 32, torch.Generator().manual_seed(1)) for cutout in (0, 9, 9))
    assert torch.equal(cut, again)
    gone = (cut != whole).any(1)
    assert cut.permute(0, 2, 3, 1)[gone].abs().max() < 1e-6
    heights, widths = gone.any(2).sum(1), gone.any(1).sum(1)
    assert set(heights.tolist()) == set(widths.tolist()) == {9}
    assert gone.sum((1, 2)).max() == 81
    corners = {
        (int(rows.nonzero()[0]), int(columns.nonzero()[0]))
        for rows, columns in zip(gone.any(2), gone.any(1), strict=True)
    }
    assert len(corners) > 16


def test_cutmix_takes_a_box_from_another_image() -> None:
    """Inside the box an image shows another one, outside itself, and `own` is the share outside; boxes differ."""
    images = torch.arange(20.0)[:, None, None, None].expand(20, 3, 32, 32)
    shares = set()
    for seed in range(40):
        mixed, other, own = cut_mix(images, torch.Generator().manual_seed(seed))
        is_own = mixed == images
        is_others = mixed == images[other]
        assert (is_own | is_others).all()
        moved = other != torch.arange(20)
        assert is_own[moved].float().mean((1, 2, 3)).tolist() == pytest.approx([own] * int(moved.sum()))
        shares.add(own)
    assert len(shares) > 20
    assert min(shares) < 0.4
    assert max(shares) > 0.9
