"""`python -m loadtest`: the sockets are patched before anything else is imported, and only in this process."""

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()

    from loadtest.cli import main

    raise SystemExit(main())
