"""The fingerprint of a value: equal values have equal fingerprints, on every machine."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

# Sorted keys and no white space: equal values must give equal text.
_CANONICAL_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of a value, in hexadecimal."""
    return hashlib.sha256(_CANONICAL_JSON.encode(value).encode()).hexdigest()


def fingerprint_of(items: Iterable[Any]) -> str:
    """Return ``fingerprint(list(items))``, computed item by item, so that no list is built."""
    digest = hashlib.sha256(b"[")
    for number, item in enumerate(items):
        digest.update(b"," * (number > 0) + _CANONICAL_JSON.encode(item).encode())
    digest.update(b"]")
    return digest.hexdigest()
