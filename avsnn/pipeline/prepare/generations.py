"""Generations: the folders that prepares of one data set wrote for different clips.

A folder is named ``SETTINGS-LIMIT-CLIPS``: fingerprints of the settings and of the clips, and the
``--limit`` between. A prepare of other clips writes to a folder of its own, so that a prepare which
is interrupted leaves the last finished prepare as it was. What is the same in an earlier generation
is taken from there. When the new generation is whole, the earlier ones of the same settings and the
same limit are removed.
"""

import re
import shutil
from contextlib import suppress
from pathlib import Path

from upath import UPath

from avsnn.pipeline.engine.atomic_files import Folder
from avsnn.pipeline.engine.lock import is_held_for_reading
from avsnn.pipeline.engine.stage import Stage

_NAME = re.compile(r"(?P<settings>.+)-(?P<limit>all|\d+)-(?P<clips>[0-9a-f]{8})(?P<suffix>\.zarr)?")

# The first versions named a folder with a single fingerprint.
_FIRST_NAME = re.compile(r"((clips|frames|audio)-)?[0-9a-f]{8}(\.zarr)?")


def generation_name(settings: str, limit: int | None, clips: str, suffix: str = "") -> str:
    """Return the name of a folder.

    Args:
        settings: fingerprint of the settings, or a word where there are no settings.
        limit: the number of clips that was asked for; None for all clips.
        clips: fingerprint of the clips.
        suffix: ending of the name.
    """
    return f"{settings}-{'all' if limit is None else limit}-{clips[:8]}{suffix}"


def earlier_generations(folder: Folder, state: Path) -> tuple[Folder, ...]:
    """Return the folders of other clips with the same settings, the latest first.

    Args:
        folder: the folder of the present generation.
        state: the folder of the journals.
    """
    journals = [
        journal
        for journal in state.glob("*.jsonl")
        if journal.stem != folder.name
        and _family(journal.stem)[:1] == _family(folder.name)[:1] != ()
    ]
    journals.sort(key=lambda journal: (-journal.stat().st_mtime_ns, journal.name))
    return tuple(folder.parent / journal.stem for journal in journals)


def remove_earlier_generations(stages: tuple[Stage, ...], index: Path) -> bool:
    """Remove the folders that a whole generation replaces.

    A folder that is replaced has the same settings and the same limit, or was named by one of the
    first versions of avsnn. While a training reads an earlier generation, no folder is removed.

    Args:
        stages: the stages whose folders are generations.
        index: the folder of ``clips.jsonl`` of the whole generation.

    Returns:
        whether the folders are removed; False while a training reads one of them.
    """
    others = (path for path in index.parent.glob("*/clips.jsonl") if path.parent != index)
    if any(map(is_held_for_reading, others)):
        return False
    for stage in stages:
        for journal in sorted(stage.state.glob("*.jsonl")):
            folder = stage.folder.parent / journal.stem
            if _is_replaced(folder, stage.folder):
                _remove_folder(folder)
                # The journal goes last, so that a removal which is interrupted goes on next time.
                journal.unlink(missing_ok=True)
    return True


def clips_of(name: str) -> str | None:
    """Return the limit and the clips of a folder's name, as a part of the name.

    The folders of index, shards and caches that hold the same clips have the same part.

    Returns:
        an empty text for a name of the first versions, which had no such part; None for a folder
        that `prepare` does not write.
    """
    if _FIRST_NAME.fullmatch(name):
        return ""
    found = _NAME.fullmatch(name)
    return f"{found['limit']}-{found['clips']}" if found else None


def _is_replaced(folder: Folder, by: Folder) -> bool:
    is_earlier = folder.name != by.name and _family(folder.name) == _family(by.name) != ()
    # The journal of a folder may lie here while the folder is in a store, or the other way round.
    return (is_earlier or bool(_FIRST_NAME.fullmatch(folder.name))) and folder.exists()


def _remove_folder(folder: Folder) -> None:
    if isinstance(folder, UPath):
        with suppress(FileNotFoundError):
            folder.fs.rm(folder.path, recursive=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _family(name: str) -> tuple[str, ...]:
    """Return settings and limit of a folder's name; nothing for another name."""
    found = _NAME.fullmatch(name)
    return (f"{found['settings']}{found['suffix'] or ''}", found["limit"]) if found else ()
