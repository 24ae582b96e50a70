"""Frames between the HTTP process and a worker."""

import socket

import numpy as np

from service.workers import wire


def test_the_images_of_a_batch_come_as_one_array() -> None:
    """Parts of any layout in memory arrive in their order, as one array."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), np.uint8)
    mirrored = np.ascontiguousarray(pixels[3:, :, :, ::-1])[:, :, :, ::-1]
    near, far = socket.socketpair()
    with near, far:
        near.sendall(wire.pack_pixels([pixels[:1], pixels[1:3], mirrored]))
        received = wire.receive(far)
    assert received is not None
    kind, payload = received
    assert kind == wire.BATCH
    assert np.array_equal(wire.unpack_pixels(payload, side=4), pixels)
