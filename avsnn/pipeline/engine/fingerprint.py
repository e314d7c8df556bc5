"""The fingerprint of a value: equal values have equal fingerprints, on every machine."""

import hashlib
import json
from typing import Any

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def fingerprint(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()
