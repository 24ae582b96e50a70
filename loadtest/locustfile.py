"""The same requests in locust's own web interface: `locust -f loadtest/locustfile.py --host http://127.0.0.1:8000`.

A class per variant, picked in the interface or by name: `locust -f loadtest/locustfile.py ... fp32 int8`. Locust's
statistics are rounded to a millisecond and more; `python -m loadtest` keeps the raw times. LOADTEST_VARIANTS names
other variants than fp32, fp16 and int8, LOADTEST_IMAGES another file of images, LOADTEST_API_KEY the service's key.
"""

import os
from itertools import count
from pathlib import Path

from locust import FastHttpUser, task

from loadtest.client.images import bodies, read
from loadtest.client.server import credentials

NAMES = os.environ.get("LOADTEST_VARIANTS", "fp32,fp16,int8").split(",")
FILE = os.environ.get("LOADTEST_IMAGES")
BODIES = bodies(read(Path(FILE) if FILE else None), "png", 1, seed=0)


class VariantUser(FastHttpUser):
    """Sends images to one variant as fast as it answers."""

    abstract = True
    variant: str
    sequence: "count[int]"

    @task
    def predict(self) -> None:
        """One image."""
        body = BODIES.bodies[next(self.sequence) % len(BODIES)]
        self.client.post(
            f"/predict/{self.variant}",
            data=body,  # type: ignore[arg-type] # locust says str, geventhttpclient takes bytes
            headers={"Content-Type": BODIES.content_type} | credentials(),
        )


def user(name: str) -> type[VariantUser]:
    """The class of one variant's users, named after it."""

    class Named(VariantUser):
        variant = name
        sequence = count()

    Named.__name__ = name
    return Named


globals().update({name: user(name) for name in NAMES})
