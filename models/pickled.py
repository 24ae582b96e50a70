"""Convert a file of `torch.save` to safetensors: `python -m models.pickled NAME < FILE > FILE.safetensors`.

Nothing that the pickle names is imported, and nothing in it runs: every object is an `Inert` stand-in, except plain
containers and dense tensors, whose numbers are read here. So the objects that people save beside their weights do no
harm, and torch is not needed. An error is a sentence about NAME on stderr, with exit code 1. `models.checkpoint` runs
this as a process, so that the memory of a whole training state ends with it. Imports no torch.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, BinaryIO

from safetensors.numpy import save

from models import naming
from models.files import CheckpointError
from models.storages import DTYPES, STORAGES, Stored, StoredTensor, Unreadable

NOT_TORCHS = (
    pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError,
    AttributeError, AssertionError, NotImplementedError, OverflowError, MemoryError,
    struct.error,
)  # fmt: skip
"""The errors of reading files that are damaged or of another kind."""
EXPECTED = "expected what torch.save(net.state_dict(), FILE) writes, or NAME.safetensors"
ZIP = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first object in a file of torch before 1.6."""


class Inert:
    """A stand-in for an object of a class that is not imported. It keeps the object's state and does nothing."""

    origin = ""
    """Module and name of the class."""

    def __new__(cls, *_args: object, **_named: object) -> Inert:
        return object.__new__(cls)

    def __init__(self, *_args: object, **_named: object) -> None:
        self.state: dict[Any, Any] = {}

    def __setstate__(self, state: object) -> None:
        parts = state if isinstance(state, tuple) else (state,)  # a class with slots has two
        self.state = {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}

    def __call__(self, *_args: object, **_named: object) -> Inert:
        return type(self)()

    def __setitem__(self, key: object, value: object) -> None:
        self.state[key] = value

    def append(self, _value: object) -> None:
        """Ignore an element of a list."""

    def add(self, _value: object) -> None:
        """Ignore an element of a set."""


class Items(dict[Any, Any]):
    """A dictionary without the attributes that a state dict has."""

    def __setstate__(self, _state: object) -> None:
        pass


def _items(*args: Any) -> Items:
    return Items(args[0]) if args and isinstance(args[0], list | tuple | dict) else Items()


def _parameter(tensor: object, *_state: object) -> object:
    return tensor


def _from_type(function: Callable[..., object], _kind: object, args: tuple[object, ...], _state: object) -> object:
    return function(*args)


KNOWN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _items,
    ("collections", "defaultdict"): lambda *_: Items(),
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): StoredTensor.version_2,
    ("torch._utils", "_rebuild_tensor_v2"): StoredTensor.version_2,
    ("torch._utils", "_rebuild_tensor_v3"): StoredTensor.version_3,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
}
"""What a pickle may call, by the name that it has there: functions of this project and `tuple`."""


class Reader(pickle.Unpickler):
    """An unpickler that imports nothing."""

    def __init__(self, file: BinaryIO, storages: dict[str, Stored]) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")
        self._storages = storages
        self._inert: dict[str, type[Inert]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a global name."""
        if (module, name) in KNOWN:
            return KNOWN[module, name]
        if module.startswith("torch") and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        origin = f"{module}.{name}"
        if name.startswith("_rebuild_") and module.startswith("torch"):
            return lambda *_args: Unreadable(origin)
        return self._inert.setdefault(origin, type("Inert", (Inert,), {"origin": origin}))

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage with a persistent identity, whose bytes may come later; or the class of a module."""
        if pid[0] == "module":
            return pid[1]
        _, dtype, key, _location, count, *view = pid
        stored = self._storages.setdefault(str(key), Stored(dtype))
        if view and view[0]:  # a part of another storage, in files of torch before 0.4
            return stored.part(view[0][1], view[0][2])
        return stored.of(dtype, count)


def content_of(data: bytes, name: str) -> object:
    """Return what a file of `torch.save` holds: containers, numbers, texts, `StoredTensor`s, and `Inert` stand-ins.

    Raises:
        CheckpointError: the file is damaged or of another kind.
    """
    try:
        return _zipped(data) if data.startswith(ZIP) else _legacy(data)
    except NOT_TORCHS as error:
        raise CheckpointError(f"{name} is no state dict ({_reason(data, error)}); {EXPECTED}") from error


def _zipped(data: bytes) -> object:
    archive = zipfile.ZipFile(io.BytesIO(data))
    names = archive.namelist()
    places = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(places) != 1 or any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise ValueError("it is an archive of another kind")
    root = places[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in names:
        raise ValueError("it is a TorchScript archive, which has code in it; save net.state_dict() instead")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise ValueError("it was written on a machine with another order of bytes")
    storages: dict[str, Stored] = {}
    content = Reader(io.BytesIO(archive.read(places[0])), storages).load()
    for key, stored in storages.items():
        stored.read = partial(archive.read, f"{root}data/{key}")  # verifies the entry's checksum
    return content


def _legacy(data: bytes) -> object:
    """Return what a file of torch before 1.6 holds: pickles, then the storages one after the other."""
    file, storages = io.BytesIO(data), dict[str, Stored]()
    if Reader(file, storages).load() != LEGACY_MAGIC:
        raise ValueError("it is no file of torch.save")
    for _ in ("version", "machine"):
        Reader(file, storages).load()
    content = Reader(file, storages).load()
    for key in Reader(file, storages).load():
        stored = storages[key]
        size = struct.unpack("<q", file.read(8))[0] * stored.dtype.size
        values = file.read(size)
        if size < 0 or len(values) != size:
            raise EOFError("it is truncated")
        stored.read = partial(bytes, values)
    return content


def _reason(data: bytes, error: Exception) -> str:
    if not data:
        return "it is empty"
    if isinstance(error, KeyError | zipfile.BadZipFile | pickle.UnpicklingError | EOFError | struct.error):
        return f"it is damaged, or no file of torch.save: {error}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def converted(data: bytes, name: str) -> bytes:
    """Return the weights in a file of `torch.save` as the content of a safetensors file, see `models.naming`.

    Floating-point tensors are float32.

    Raises:
        CheckpointError: the file holds no tensors, or one that is sparse, quantized, complex or without values.
    """
    found = naming.find(content_of(data, name), f"{name} is no state dict", EXPECTED)
    try:
        arrays = {key: tensor.array() for key, tensor in found.tensors.items() if _is_dense(tensor, f"{name}: {key}")}
    except NOT_TORCHS as error:
        raise CheckpointError(f"{name} is no state dict ({_reason(data, error)}); {EXPECTED}") from error
    return save(arrays, found.about())


def _is_dense(tensor: StoredTensor | Unreadable, what: str) -> bool:
    if reason := tensor.reason:
        raise CheckpointError(f"{what} is no dense tensor of real numbers ({reason})")
    return True


def main(name: str) -> None:
    try:
        content = converted(sys.stdin.buffer.read(), name)
    except CheckpointError as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(content)


if __name__ == "__main__":
    main(sys.argv[1])
