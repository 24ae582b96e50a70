"""`python -m loadtest`: the sockets are patched before anything else is imported, and only in this process."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["diff"]:
        from loadtest import diff

        raise SystemExit(diff.main(sys.argv[2:]))

    from gevent import monkey

    monkey.patch_all()

    from loadtest import cli

    raise SystemExit(cli.main())
