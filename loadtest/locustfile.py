"""The same requests in locust's own web interface: `locust -f loadtest/locustfile.py --host http://127.0.0.1:8000`.

Each variant is a class of users. The command line can name some of them: `locust -f loadtest/locustfile.py ... int8`.
Locust rounds its statistics to a millisecond or more; `python -m loadtest` keeps the raw times.

Environment: LOADTEST_VARIANTS names the variants (fp32,fp16,int8), LOADTEST_IMAGES a file or folder of images (the
bundled sample), LOADTEST_API_KEY the service's key.
"""

import os
from itertools import count
from pathlib import Path

from locust import FastHttpUser, task

from loadtest.client.folders import read
from loadtest.client.images import bodies
from loadtest.client.server import credentials

NAMES = os.environ.get("LOADTEST_VARIANTS", "fp32,fp16,int8").split(",")
FILE = os.environ.get("LOADTEST_IMAGES")
BODIES = bodies(read(Path(FILE) if FILE else None, "png"), "png", 1, seed=0)


class VariantUser(FastHttpUser):
    """A user that sends images to one variant as fast as it answers."""

    abstract = True
    variant: str
    sequence: "count[int]"

    @task
    def predict(self) -> None:
        """Send one image."""
        index = next(self.sequence) % len(BODIES)
        self.client.post(
            f"/predict/{self.variant}",
            data=BODIES.bodies[index],  # type: ignore[arg-type] # locust says str, geventhttpclient takes bytes
            headers={"Content-Type": BODIES.content_types[index]} | credentials(),
        )


def user(name: str) -> type[VariantUser]:
    """Return the class of one variant's users, named after the variant."""

    class Named(VariantUser):
        variant = name
        sequence = count()

    Named.__name__ = name
    return Named


globals().update({name: user(name) for name in NAMES})
