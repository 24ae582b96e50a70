"""One of several load generators: `python -m loadtest.worker`, which loadtest.fleet starts and talks to."""

import sys

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

    from loadtest.fleet import work

    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    work(sys.stdin.buffer, answers)
