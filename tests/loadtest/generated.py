"""One round of the load generator as a process: `python -m tests.loadtest.generated URL TIMEOUT`.

It prints `{"errors": [...], "collections": N}`: the kinds of errors of the requests ("" for a good answer), and the
garbage collections that began while requests were under way.
"""

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402 - gevent patches the sockets before anything else is imported
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

from loadtest.client.generator import Generator  # noqa: E402
from loadtest.client.images import bodies  # noqa: E402
from loadtest.client.wire import predict  # noqa: E402
from loadtest.plan import Round  # noqa: E402
from tests.loadtest.builders import USERS, arm, some_images  # noqa: E402


def main(url: str, timeout: str) -> None:
    """Play a round of eight users and print what happened."""
    fp32 = arm("fp32", url)
    collected: list[float] = []
    gc.callbacks.append(lambda phase, _: collected.append(time.perf_counter()) if phase == "start" else None)
    generator = Generator({fp32.name: predict(fp32, bodies(some_images(), "raw", 1, 0))}, 8, float(timeout))
    generator.start()
    sent = generator.play(Round((fp32,), USERS, 0, 0.0, 0.5, 0)).requests["fp32"]
    generator.stop()
    first, last = min(r.start for r in sent), max(r.end for r in sent)
    during = sum(first < at < last for at in collected)
    print(json.dumps({"errors": sorted({r.error for r in sent}), "collections": during}))


if __name__ == "__main__":
    main(*sys.argv[1:])
