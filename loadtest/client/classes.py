"""The classes of the images and those of the services, matched by name."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from loadtest.client import folders
from loadtest.client.description import Description
from loadtest.client.images import UNLABELLED, ImagesError, LabelledImages

SHOWN = 20
"""The most names of classes that a sentence lists."""


def chosen(path: Path | None, payload: str, described: Sequence[Description]) -> LabelledImages:
    """Return the images of `folders.read`, their labels matched by name with the classes of these services.

    Raises:
        ImagesError: there are no images to send, or they are of classes that the services do not know.
    """
    return matched(folders.read(path, payload), classes_of(described), is_chosen=path is not None)


def classes_of(described: Sequence[Description]) -> tuple[str, ...]:
    """Return the names of the classes of the services, in the order of their answers' indices; empty if none says it.

    Raises:
        ImagesError: two services name their classes differently, so that an index means two things.
    """
    said = list(dict.fromkeys(tuple(map(str, one.checkpoint.get("classes") or ())) for one in described))
    said = [names for names in said if names]
    if len(said) > 1:
        raise ImagesError(f"the services have different classes: {listed(said[0])}; and {listed(said[1])}")
    return said[0] if said else ()


def matched(images: LabelledImages, served: Sequence[str], *, is_chosen: bool) -> LabelledImages:
    """Return the images with labels that are indices into the services' classes, matched by name.

    Args:
        images: the images. Without names of their classes, their labels stay as they are.
        served: the services' classes. Where the services do not say them, or say `class 0`, `class 1`, ..., labels
            stay, too.
        is_chosen: True if the user named the images. Of the bundled images, those of classes that the service does not
            know are sent unlabelled.

    Raises:
        ImagesError: the user chose images of classes that the services do not know.
    """
    if not served:
        return images
    if not images.classes or (is_chosen and _is_numbered(served)):
        return _by_index(images, served)
    unknown = [name for name in images.classes if name not in served]
    if unknown and is_chosen:
        raise ImagesError(
            f"the service does not know {listed(unknown)} of the images. "
            f"The images have {listed(images.classes)}, the service has {listed(served)}"
        )
    places = [served.index(name) if name in served else UNLABELLED for name in images.classes]
    return replace(images, labels=np.array(places, np.int64)[images.labels], classes=tuple(served))


def _by_index(images: LabelledImages, served: Sequence[str]) -> LabelledImages:
    most = max(int(images.labels.max()) + 1, len(images.classes))
    if most > len(served):
        raise ImagesError(f"the images have {most} classes, and the service has {listed(served)}")
    return replace(images, classes=images.classes or tuple(served))


def _is_numbered(served: Sequence[str]) -> bool:
    return all(name == f"class {index}" for index, name in enumerate(served))


def listed(names: Sequence[str]) -> str:
    """Return names in words, such as `3 classes (cat, dog, horse)`."""
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} classes ({', '.join(names[:SHOWN])}{more})"
