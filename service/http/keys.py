"""API keys: read, and compared in constant time."""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from itertools import product

KEY = re.compile(r"[!-+\--~]{16,}")
"""At least 16 visible ASCII characters, no comma."""


def keys_in(text: str) -> tuple[str, ...]:
    """The keys in lines of text; empty lines and those that begin with # hold none.

    Raises:
        ValueError: there is none, or one that is too easy to guess; says which, never what it is.
    """
    keys = tuple(line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#"))
    if not keys:
        raise ValueError("expected at least one key, found none")
    weak = [str(number) for number, key in enumerate(keys, 1) if not KEY.fullmatch(key)]
    if weak:
        raise ValueError(
            f"expected 16 or more visible ASCII characters a key, without commas; not so: number {', '.join(weak)}"
        )
    return keys


class Keys:
    """Keys as digests, all of them compared each time: how long it takes says nothing about any."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def allow(self, headers: Mapping[str, str]) -> bool:
        """Whether `Authorization: Bearer KEY` or `X-API-Key: KEY` holds one of them."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = [_digest(bearer.strip() if scheme.lower() == "bearer" else ""), _digest(headers.get("x-api-key", ""))]
        pairs = product(given, self._digests)
        return sum(hmac.compare_digest(one, other) for one, other in pairs) > 0  # any() would stop at the first


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
