"""Send what needs most memory to the named variants on port 8000 for 15 s, and print the answers' statuses.

deploy/image_check.py runs this text inside a container, so it uses the image's packages only.
"""

import http.client
import io
import socket
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from PIL import Image

ADDRESS = ("127.0.0.1", 8000)
SECONDS = 15
CLIENTS = 4
"""Clients for each variant and each kind of body."""
UPLOADS = 24
"""Uploads of 8 MiB that stop before their last byte. They leave a quarter of the default of --max-held-bytes."""
UPLOAD_SECONDS = 2
"""The time in which the uploads arrive, before the queues are full and refuse them."""
LONGEST = 2**23


def bodies() -> dict[str, bytes]:
    """Return a body by Content-Type: 256 raw images, and a PNG of 16 megapixels."""
    picture = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(picture, "PNG")
    return {"application/octet-stream": bytes(256 * 3072), "image/png": picture.getvalue()}


def send(variant: str, content_type: str, body: bytes, until: float) -> Counter[int]:
    """Send requests one after another, and return how many answers had each status."""
    statuses: Counter[int] = Counter()
    time.sleep(UPLOAD_SECONDS)
    while time.monotonic() < until:
        connection = http.client.HTTPConnection(*ADDRESS, timeout=60)
        connection.request("POST", f"/predict/{variant}", body, {"Content-Type": content_type})
        statuses[connection.getresponse().status] += 1
        connection.close()
    return statuses


def hold(variant: str, until: float) -> None:
    """Upload all bytes of a body but the last one, and keep the connection open."""
    head = (f"POST /predict/{variant} HTTP/1.1", "Host: localhost", "Content-Type: image/png")
    lines = (*head, f"Content-Length: {LONGEST}")
    with suppress(OSError), socket.create_connection(ADDRESS, timeout=5) as upload:
        upload.sendall("\r\n".join((*lines, "", "")).encode() + bytes(LONGEST - 1))
        time.sleep(max(0, until - time.monotonic()))


def main(variants: list[str]) -> None:
    """Run all clients at once."""
    until = time.monotonic() + SECONDS
    kinds = [(variant, *body) for variant in variants for body in bodies().items()] * CLIENTS
    with ThreadPoolExecutor(len(kinds) + UPLOADS) as pool:
        senders = [pool.submit(send, *kind, until) for kind in kinds]
        for _ in range(UPLOADS):
            pool.submit(hold, variants[0], until)
        statuses = sum((sender.result() for sender in senders), Counter[int]())
    print(", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())))


if __name__ == "__main__":
    main(sys.argv[1:])
