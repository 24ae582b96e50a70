"""The command that sends a part of another process's load: `python -m loadtest worker HOST:PORT`."""

import argparse
import sys
from collections.abc import Sequence

from loadtest.client.worker import Worker
from loadtest.console import tell
from loadtest.flags import place

EPILOG = """Start the load test itself with --workers N --master HOST:PORT on a machine that this one can reach.
It tells the worker what to send. The worker must be the same version of the load test.

If the service asks for an API key, give it to every worker in the environment variable LOADTEST_API_KEY.

exit codes:
  0    the master ended the run, or was gone for a minute
  2    wrong flags, or no master answered for five minutes
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Work for a master and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest worker",
        description="Send a part of the load of a load test that runs elsewhere.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("master", type=place, metavar="HOST:PORT", help="the address that --master names there")
    master = parser.parse_args(argv).master
    try:
        Worker(master.host, master.port).run()
    except ConnectionError:
        tell(f"error: no load test answers at {master}", sys.stderr)
        return 2
    return 0
