"""Corruptions equal CIFAR-10-C's and are the same every time."""

import colorsys

import numpy as np
import pytest

from models.evaluation import corruptions
from models.evaluation.corruptions import CORRUPTIONS, corrupt

EVERY = [f"{name}@{severity}" for name in CORRUPTIONS for severity in range(1, 6)]


@pytest.mark.parametrize("condition", EVERY)
def test_pixels_stay_pixels(condition: str, images: np.ndarray) -> None:
    """A corruption keeps shape and type, does not write into its input, and repeats exactly."""
    original = images[:6].copy()
    found = corrupt(original, condition)
    assert (found.shape, found.dtype) == ((6, 3, 32, 32), np.uint8)
    assert np.array_equal(original, images[:6])
    assert np.array_equal(found, corrupt(original, condition))


@pytest.mark.parametrize("condition", EVERY)
def test_an_image_is_corrupted_alike_in_any_company(condition: str, images: np.ndarray) -> None:
    """An image is corrupted in the same way alone and before other images."""
    assert np.array_equal(corrupt(images[:20], condition)[:3], corrupt(images[:3], condition))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_more_severe_is_further_away(name: str, images: np.ndarray) -> None:
    """The mean squared error grows with the severity."""
    exact = images[:50].astype(float)
    errors = [((corrupt(images[:50], f"{name}@{s}") - exact) ** 2).mean() for s in range(1, 6)]
    assert errors == sorted(errors)
    assert errors[0] > 0


def test_noise_has_the_stated_deviation() -> None:
    """On middle grey, severity 3 adds normal noise of 0.08 of the range."""
    grey = np.full((200, 3, 32, 32), 128, np.uint8)
    assert corrupt(grey, "noise@3").std() / 255 == pytest.approx(0.08, rel=0.01)


@pytest.mark.parametrize("axis", [2, 3])
def test_blur_spreads_an_edge_as_a_gaussian(axis: int) -> None:
    """Under severity 5 (sigma 1) the slope of an edge from black to white has variance 1 along its axis."""
    edge = np.zeros((1, 3, 32, 32), np.uint8)
    edge.swapaxes(axis, 3)[..., 16:] = 255
    slope = np.diff(corrupt(edge, "blur@5").swapaxes(axis, 3)[0, 0, 5].astype(float))
    assert slope.sum() == 255
    centred = np.arange(31) - (slope * np.arange(31)).sum() / 255
    assert (slope * centred**2).sum() / 255 == pytest.approx(1, rel=0.05)


def test_blur_leaves_a_plain_image() -> None:
    """A blurred plain image stays plain, up to its border."""
    plain = np.full((1, 3, 32, 32), 200, np.uint8)
    assert (corrupt(plain, "blur@5") == 200).all()


def test_contrast_shrinks_to_the_mean(images: np.ndarray) -> None:
    """Severity 2 halves each channel's deviation and keeps its mean, to the rounding."""
    found, exact = corrupt(images[:20], "contrast@2"), images[:20]
    assert found.std((2, 3)) == pytest.approx(exact.std((2, 3)) / 2, abs=0.5)
    assert found.mean((2, 3)) == pytest.approx(exact.mean((2, 3)), abs=1)


@pytest.mark.parametrize("colour", [(10, 60, 200), (0, 0, 0), (255, 255, 255), (90, 90, 90), (255, 0, 128)])
def test_brightness_raises_the_value_of_hsv(colour: tuple[int, int, int]) -> None:
    """Severity 4 adds 0.2 to the value of HSV, as the standard library computes it."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    expected = np.array(colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2))) * 255
    image = np.array(colour, np.uint8).reshape(1, 3, 1, 1).repeat(32, 2).repeat(32, 3)
    assert np.abs(corrupt(image, "brightness@4")[0, :, 5, 5] - expected).max() <= 1


def test_the_flag_is_read() -> None:
    """The flag accepts none, all, and a list."""
    assert corruptions.parse("none") == ()
    assert len(corruptions.parse("all")) == 15
    assert corruptions.parse("jpeg@3, blur@1") == ("jpeg@3", "blur@1")


@pytest.mark.parametrize("text", ["", "fog@1", "jpeg", "jpeg@6", "jpeg@", "jpeg@0", "jpeg@12"])
def test_an_unknown_corruption_is_refused(text: str) -> None:
    """An unknown corruption is an error that lists the known ones."""
    with pytest.raises(ValueError, match="severity of 1 to 5"):
        corruptions.parse(text)
