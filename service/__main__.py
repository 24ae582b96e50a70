"""`python -m service`: read the settings from flags and environment, and serve."""

from service import forks


def main(argv: list[str] | None = None) -> None:
    """Serve with the settings from flags and environment."""
    forks.begin()
    # The fork server imports its modules while this process imports these.
    from service.flags import parse  # noqa: PLC0415
    from service.serving import serve  # noqa: PLC0415

    serve(parse(argv))


if __name__ == "__main__":
    main()
