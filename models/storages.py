"""The tensors in a file of `torch.save`, as views of the bytes that they are stored in. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Dtype:
    """A dtype of torch."""

    name: str
    numpy: str | None
    """numpy's name of a dtype with the same bytes; None if numpy has no such numbers."""

    @property
    def size(self) -> int:
        """Return the bytes of a number."""
        return np.dtype(self.numpy).itemsize if self.numpy else 1


DTYPES = {
    dtype.name: dtype
    for dtype in (
        Dtype("float64", "<f8"), Dtype("float32", "<f4"), Dtype("float16", "<f2"), Dtype("bfloat16", "<u2"),
        Dtype("int64", "<i8"), Dtype("int32", "<i4"), Dtype("int16", "<i2"), Dtype("int8", "i1"), Dtype("uint8", "u1"),
        Dtype("uint16", "<u2"), Dtype("uint32", "<u4"), Dtype("uint64", "<u8"), Dtype("bool", "?"),
        Dtype("complex64", "<c8"), Dtype("complex128", "<c16"), Dtype("complex32", None), Dtype("float8_e4m3fn", None),
        Dtype("float8_e5m2", None), Dtype("qint8", None), Dtype("quint8", None), Dtype("qint32", None),
    )
}  # fmt: skip
STORAGES = {
    f"{name}Storage": DTYPES[dtype]
    for name, dtype in {
        "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
        "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "Untyped": "uint8",
        "ComplexFloat": "complex64", "ComplexDouble": "complex128", "QInt8": "qint8", "QUInt8": "quint8",
        "QInt32": "qint32",
    }.items()
}  # fmt: skip
"""The dtype of each kind of storage, by torch's name of its class."""


@dataclass(slots=True)
class Stored:
    """The bytes of one storage, which may be read later than the tensors that view them."""

    dtype: Dtype
    read: Callable[[], bytes] | None = None

    def of(self, dtype: Dtype, count: int) -> Part:
        """Return the whole storage of so many numbers."""
        return Part(self, dtype, 0, count)

    def part(self, first: int, count: int) -> Part:
        """Return so many numbers, from the number at `first` on."""
        return Part(self, self.dtype, first, count)


@dataclass(frozen=True, slots=True)
class Part:
    """Numbers in a storage."""

    stored: Stored
    dtype: Dtype
    first: int
    count: int

    def numbers(self, dtype: Dtype) -> NDArray[Any]:
        """Return the numbers in one dimension.

        Raises:
            ValueError: the storage has fewer bytes.
        """
        assert self.stored.read is not None
        data = self.stored.read()
        return np.frombuffer(data, dtype.numpy, self.count * self.dtype.size // dtype.size, self.first * dtype.size)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A tensor of a kind that has no plain numbers."""

    origin: str
    """The function of torch that makes it."""
    shape: tuple[int, ...] = ()

    @property
    def reason(self) -> str:
        """Return the kind of the tensor."""
        return f"it is made by {self.origin}"

    def array(self) -> NDArray[Any]:
        """Raise ValueError."""
        raise ValueError(self.reason)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A dense tensor: a view of a storage."""

    part: Part
    dtype: Dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    is_negative: bool = False
    """True if the numbers are the negatives of the stored ones."""

    @classmethod
    def version_2(cls, part: Part, offset: int, shape: Sequence[int], stride: Sequence[int], *rest: Any) -> Self:
        """Return the tensor of torch's `_rebuild_tensor_v2`; `rest` ends with metadata if there are any."""
        about = rest[2] if len(rest) > 2 and isinstance(rest[2], dict) else {}
        return cls(part, part.dtype, offset, tuple(shape), tuple(stride), bool(about.get("neg")))

    @classmethod
    def version_3(
        cls, part: Part, offset: int, shape: Sequence[int], stride: Sequence[int], _grad: Any, _hooks: Any,
        dtype: Dtype, *rest: Any,
    ) -> Self:  # fmt: skip
        """Return the tensor of torch's `_rebuild_tensor_v3`, which names its dtype."""
        return replace(cls.version_2(part, offset, shape, stride, None, None, *rest), dtype=dtype)

    @property
    def reason(self) -> str:
        """Return why the tensor has no real numbers; empty if it has."""
        is_real = self.dtype.numpy is not None and not self.dtype.name.startswith("complex")
        return "" if is_real else f"it is {self.dtype.name}"

    def array(self) -> NDArray[Any]:
        """Return the numbers in C order, floating-point ones as float32.

        Raises:
            ValueError: the view reaches beyond its storage.
        """
        numbers = self.part.numbers(self.dtype)
        if 0 in self.shape:
            return np.zeros(self.shape, np.float32)
        last = self.offset + sum((length - 1) * step for length, step in zip(self.shape, self.stride, strict=True))
        if min((self.offset, *self.shape, *self.stride), default=0) < 0 or last >= len(numbers):
            raise ValueError("a tensor reaches beyond its storage")
        strides = [step * numbers.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides, writeable=False)
        values = _as_float32(np.array(view, order="C"), self.dtype)
        return -values if self.is_negative else values


def _as_float32(values: NDArray[Any], dtype: Dtype) -> NDArray[Any]:
    """Return floating-point numbers as float32, others as they are. A bfloat16 is the upper half of a float32."""
    if dtype.name == "bfloat16":
        return np.asarray(values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32) if values.dtype.kind == "f" else values
