"""API keys: how they are read and compared."""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from itertools import product

KEY = re.compile(r"[!-+\--~]{16,}")
"""At least 16 visible ASCII characters, no comma."""


def keys_in(text: str) -> tuple[str, ...]:
    """Return the keys in lines of text. Empty lines, and lines that begin with #, hold no key.

    Raises:
        ValueError: there is no key, or one that is too easy to guess. The message has its number, not the key.
    """
    keys = tuple(line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#"))
    if not keys:
        raise ValueError("expected at least one key, found none")
    weak = [str(number) for number, key in enumerate(keys, 1) if not KEY.fullmatch(key)]
    if weak:
        raise ValueError(
            f"expected 16 or more visible ASCII characters a key, without commas; wrong: number {', '.join(weak)}"
        )
    return keys


class Keys:
    """The digests of the keys. A request is compared with all of them, so its duration reveals nothing about a key."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def allow(self, headers: Mapping[str, str]) -> bool:
        """Return whether `Authorization: Bearer KEY` or `X-API-Key: KEY` has one of the keys."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = [_digest(bearer.strip() if scheme.lower() == "bearer" else ""), _digest(headers.get("x-api-key", ""))]
        pairs = product(given, self._digests)
        return sum(hmac.compare_digest(one, other) for one, other in pairs) > 0  # any() would stop at the first match


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
