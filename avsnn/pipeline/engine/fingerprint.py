"""The fingerprint of a value: equal values have equal fingerprints, on every machine."""

import hashlib
import json
from typing import Any

# Sorted keys and no white space: equal values must give equal text.
_CANONICAL_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of a value, in hexadecimal."""
    return hashlib.sha256(_CANONICAL_JSON.encode(value).encode()).hexdigest()
