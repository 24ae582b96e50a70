"""The entry point of `python -m loadtest`. gevent patches the sockets before anything else is imported."""

import os
import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["diff"]:
        from loadtest import diff

        raise SystemExit(diff.main(sys.argv[2:]))

    if sys.argv[1:2] == ["report"]:
        from loadtest import recover

        raise SystemExit(recover.main(sys.argv[2:]))

    # libev's other backends round timers up to milliseconds, which sends requests 0.6 ms late; select does not.
    os.environ.setdefault("GEVENT_BACKEND", "select")

    from gevent import monkey

    monkey.patch_all()

    if sys.argv[1:2] == ["worker"]:
        from loadtest import join

        raise SystemExit(join.main(sys.argv[2:]))

    from loadtest import cli

    raise SystemExit(cli.main())
