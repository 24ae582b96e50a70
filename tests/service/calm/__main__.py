"""Serve with fake engines without faults: `python -m tests.service.calm FLAGS`.

multiprocessing imports a main module anew in each worker and decoder, which takes seconds, except for a `__main__.py`.
"""

import sys

from service.flags import parse
from service.serving import serve
from tests.service.calm import CalmAPI

if __name__ == "__main__":
    serve(parse(sys.argv[1:]), api=CalmAPI)
