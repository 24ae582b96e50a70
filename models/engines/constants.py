"""The weights that a graph is given, in a file without a name. Imports no torch.

OpenVINO packs weights when it first runs a graph, and keeps the given ones for shapes to come, which do not need them.
Mapped from a file they can leave the memory of the process: if one is read after all, the system reads the file.
"""

import mmap
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import opset13 as op

Node = Any


class Constants:
    """The constants of one graph. Where no temporary file can be written they stay in memory."""

    def __init__(self) -> None:
        self._maps: list[mmap.mmap] = []

    def add(self, array: NDArray[Any]) -> Node:
        """Return a constant node with the array's values."""
        try:
            mapped = _mapped(array)
        except OSError:
            return op.constant(array)
        self._maps.append(mapped)
        return op.constant(np.frombuffer(mapped, array.dtype).reshape(array.shape), shared_memory=True)

    def release(self) -> None:
        """Let the arrays leave the memory of this process until they are read again."""
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)


def _mapped(array: NDArray[Any]) -> mmap.mmap:
    """Return the array's bytes, mapped from a file of their own, which ends with the mapping.

    Raises:
        OSError: there is no folder for temporary files, or no space in it.
    """
    with tempfile.TemporaryFile() as file:
        file.write(np.ascontiguousarray(array).data)
        file.flush()
        return mmap.mmap(file.fileno(), array.nbytes)
