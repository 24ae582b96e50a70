"""The entry point of `python -m loadtest`. gevent patches the sockets before anything else is imported."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["diff"]:
        from loadtest import diff

        raise SystemExit(diff.main(sys.argv[2:]))

    if sys.argv[1:2] == ["report"]:
        from loadtest import recover

        raise SystemExit(recover.main(sys.argv[2:]))

    from gevent import monkey

    monkey.patch_all()

    from loadtest import cli

    raise SystemExit(cli.main())
