"""Names that are made from paths: keys of clips, and names of data sets."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping

from avsnn.datasets_manifest.clips import composed

# A key longer than this number of characters is cut, because a file system allows 255 bytes for
# the name of a file, and a character may take four bytes.
LONGEST_KEY = 56

# A longer name of a data set is refused, because files and folders are called after it.
LONGEST_NAME = 64


def dataset_name(folder_name: str) -> str:
    """Return the name of a data set, made from the name of a folder: `My Clips` is `my-clips`."""
    plain = unicodedata.normalize("NFKD", folder_name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:LONGEST_NAME].strip("-") or "own"


def make_keys(
    places: Iterable[str], known: Mapping[str, str], taken: Iterable[str] = ()
) -> dict[str, str]:
    """Return a key for every clip, by the place of the clip: its path without suffix.

    A key shows the path in letters, digits, ``_`` and ``-``. If two clips would get the same key,
    then the clip whose path needed no change keeps the key, and a hash of the path tells the other
    clips apart.

    Args:
        places: the places of all clips; no place comes twice.
        known: the keys that clips have already, by place. A clip never gets another key.
        taken: keys of other clips.
    """
    keys = {place: known[place] for place in places if place in known}
    used = {*taken, *keys.values()}
    # The places that are keys already come first, so no other clip takes the key of such a place.
    for place in sorted(places, key=lambda name: (_readable_key(name) != _exact_key(name), name)):
        if place in keys:
            continue
        key = _readable_key(place)
        if not key or key in used:
            digest = hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()
            key = next(
                name
                for length in range(6, 65)
                if (name := f"{key}-{digest[:length]}".strip("-")) not in used
            )
        keys[place] = key
        used.add(key)
    return keys


def _exact_key(place: str) -> str:
    return composed(place).replace("/", "-")


def _readable_key(place: str) -> str:
    text = re.sub(r"[^\w-]+", "_", _exact_key(place)).strip("-_")
    if len(text) <= LONGEST_KEY:
        return text
    # The end of a path tells clips of one folder apart.
    return text[-LONGEST_KEY:].strip("-_")
