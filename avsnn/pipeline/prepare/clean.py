"""Finds and removes what a data set's folder holds beside the last prepare.

What `prepared.json` names stays, and so do the folders of the last prepare that was started, the
published files, everything that a training reads at this moment, and everything that has another
name than the files of `prepare`.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from upath import UPath

from avsnn.pipeline.engine.atomic_files import Folder, is_partial, locate, name_in
from avsnn.pipeline.engine.lock import (
    FOLDERS_UNDER_LOCK,
    is_held_for_reading,
    lock_folder,
    require_no_writer,
)
from avsnn.pipeline.formats.prepared_json import load_prepared
from avsnn.pipeline.prepare.build_stages import DatasetStages, build_as_requested
from avsnn.pipeline.prepare.generations import clips_of

# The files that `prepare` writes into a folder of each kind, by their path in the folder.
_FILES = {
    "index": re.compile(r"clips\.(jsonl|npz)"),
    # Earlier versions wrote an index of JSON beside each shard.
    "shards": re.compile(r"\w+-\d{6,}\.(tar|npz|json)"),
    "cache": re.compile(r"(\w+/)?zarr\.json|\w+/c(/\d+)+"),
}
_DOWNLOAD = re.compile(r"[0-9a-f]{64}\.(part|mark)")


@dataclass(frozen=True)
class Unneeded:
    """A folder, or some files of one folder, that no prepare and no training needs.

    Attributes:
        name: path of the folder below the data set's folder, or its URL.
        reason: why nothing needs the files.
        files: the files.
        sizes: the size of each file in bytes.
        folder: the folder, if nothing needs the whole folder; None where other files stay.
        journal: the journal of the folder, which is removed last; None where there is none.
    """

    name: str
    reason: str
    files: tuple[Folder, ...]
    sizes: tuple[int, ...]
    folder: Folder | None = None
    journal: Path | None = None

    @property
    def bytes(self) -> int:
        """Size of all files in bytes."""
        return sum(self.sizes)


@dataclass
class CleanPlan:
    """What can be removed from the folder of a data set.

    Attributes:
        folder: the folder of the data set.
        unneeded: what can be removed.
        left: phrases about folders that stay although the last prepare does not need the folders.
    """

    folder: Path
    unneeded: list[Unneeded] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Number of bytes that the disk gets back.

        Folders of the same clips share files: the disk gets the bytes of a file back when the last
        name of the file is removed.
        """
        total, names = 0, Counter[tuple[int, int]]()
        pairs = (zip(one.files, one.sizes, strict=True) for one in self.unneeded)
        for file, size in chain.from_iterable(pairs):
            if isinstance(file, UPath):
                total += size
                continue
            stat = file.stat()
            names[place := (stat.st_dev, stat.st_ino)] += 1
            if names[place] == stat.st_nlink:
                total += size
        return total


def plan_clean(dataset: str, *, root: Path) -> CleanPlan:
    """Find what can be removed; write nothing.

    Raises:
        UserError: no prepare was started there, ``prepared.json`` is damaged, or there is no such
            data set.
        RunError: another run writes there.
    """
    stages = build_as_requested(dataset, root=root)
    require_no_writer(stages.folder)
    return _plan(stages)


def clean(dataset: str, plan: CleanPlan, *, root: Path) -> None:
    """Remove what a plan names, except what is needed since.

    A kill leaves a folder that the next plan names again.

    Raises:
        UserError: nobody may write there.
        RunError: another run writes there.
    """
    # The lock removes the scratch files of killed runs.
    with lock_folder(plan.folder):
        still_unneeded = {
            one.name for one in _plan(build_as_requested(dataset, root=root)).unneeded
        }
        for one in plan.unneeded:
            if one.name in still_unneeded:
                _remove(one)


def _plan(stages: DatasetStages) -> CleanPlan:
    plan = CleanPlan(stages.folder)
    needed = {str(stage.folder) for stage in stages.generations}
    prepared = load_prepared(stages.folder.parent, stages.manifest.name)
    if prepared:
        for name in (prepared.index, prepared.shards, prepared.frames, prepared.audio):
            needed.add(str(locate(stages.folder, name)))
    needed_names = {place.rstrip("/").rpartition("/")[2] for place in needed}
    held = {
        clips_of(listing.parent.name)
        for listing in stages.folder.glob("index/*/clips.jsonl")
        if is_held_for_reading(listing)
    }
    state = stages.fetch.state
    for folder in _generations(stages):
        if str(folder) in needed:
            continue
        name = name_in(stages.folder, folder)
        if clips_of(folder.name) in held:
            plan.left.append(f"{name} stays: a training or an evaluation reads these clips now")
            continue
        files = _files(folder)
        own = _FILES[folder.parent.name]
        other = [path for path in files if not own.fullmatch(path.removesuffix(".partial"))]
        if other:
            plan.left.append(f"{name} stays: avsnn did not write {other[0]} in this folder")
            continue
        journal = state / f"{folder.name}.jsonl"
        places = tuple(folder / path for path in files)
        is_own = journal.is_file() and folder.name not in needed_names
        reason = _why(clips_of(folder.name), clips_of(stages.index.folder.name))
        sizes = tuple(files.values())
        plan.unneeded.append(
            Unneeded(name, reason, places, sizes, folder, journal if is_own else None)
        )
    for kind in _FILES:
        if (stages.folder / kind).is_symlink():
            plan.left.append(f"{kind} is a link, which clean does not follow")
    for name, reason, paths in _scratch(stages, needed_names):
        if paths:
            sizes = tuple(path.stat().st_size for path in paths)
            plan.unneeded.append(Unneeded(name, reason, paths, sizes))
    return plan


def _why(clips: str | None, present: str | None) -> str:
    """Return why a folder is not needed, from the limits and clips of the folder and of today."""
    if not clips or not present:
        return "of a first version of avsnn"
    (limit, _, _), (present_limit, _, _) = clips.partition("-"), present.partition("-")
    if limit != present_limit:
        return "of all clips" if limit == "all" else f"of --limit {limit}"
    return "of other settings" if clips == present else "of other clips or labels"


def _generations(stages: DatasetStages) -> Iterator[Folder]:
    """Yield the folders that prepares wrote for some settings and clips, here and in the store."""
    for kind in _FILES:
        here = stages.folder / kind
        # What lies behind a link lies outside of the folder that avsnn made.
        for folder in sorted(here.iterdir()) if _is_own_folder(here) else ():
            if _is_own_folder(folder) and clips_of(folder.name) is not None:
                yield folder
    journals = sorted(path.stem for path in stages.fetch.state.glob("*.jsonl"))
    for parent in (stages.extract.folder.parent, stages.frames.folder.parent):
        # Folders of a store that have no journal here may be those of another machine.
        if isinstance(parent, UPath):
            for name in journals:
                if clips_of(name) is not None and (parent / name).exists():
                    yield parent / name


def _is_own_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _files(folder: Folder) -> dict[str, int]:
    """Return the size of every file in a folder and below, by the path in the folder.

    A link is no file of avsnn, whatever its name is, so its path gets a name that no file has.
    """
    if isinstance(folder, UPath):
        found = folder.fs.find(folder.path, detail=True)
        start = len(folder.path.rstrip("/")) + 1
        return {path[start:]: int(facts["size"]) for path, facts in sorted(found.items())}
    files = {}
    for place, folders, names in os.walk(folder):
        for name in sorted([*names, *folders]):
            path = Path(place, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                files[f"the link {relative}"] = 0
            elif not path.is_dir():
                files[relative] = path.stat().st_size
    return files


def _scratch(
    stages: DatasetStages, needed_names: set[str]
) -> Iterator[tuple[str, str, tuple[Path, ...]]]:
    """Yield a name, a reason and the files of everything else that no unit wants."""
    state = stages.fetch.state
    if not _is_own_folder(state):
        return
    downloads, partial = state / "downloads", state / "partial"
    unwanted = [
        path
        for path in sorted(downloads.iterdir() if _is_own_folder(downloads) else ())
        if _DOWNLOAD.fullmatch(path.name) and path.is_file()
    ]
    if unwanted:
        # The downloads that are not whole are few; the files that are wanted are many.
        stems = {path.stem for path in unwanted}
        stems.difference_update(stages.fetch.partial(file).data.stem for file in stages.fetch.files)
        unwanted = [path for path in unwanted if path.stem in stems]
    yield (
        "state/downloads",
        "partial downloads of files that the last prepare does not want",
        tuple(unwanted),
    )
    scratch = [*partial.rglob("*")] if _is_own_folder(partial) else []
    for name in FOLDERS_UNDER_LOCK:
        scratch += filter(is_partial, (stages.folder / name).glob(".*.partial"))
    left = tuple(path for path in sorted(scratch) if path.is_file() and not path.is_symlink())
    yield "state/partial", "left by runs that were killed", left
    # A folder behind a link is not gone.
    places: list[Folder] = [stages.folder / kind for kind in _FILES]
    places += [stages.extract.folder.parent, stages.frames.folder.parent]
    yield (
        "state",
        "journals of folders that are gone",
        tuple(
            path
            for path in sorted(state.glob("*.jsonl"))
            if clips_of(path.stem) is not None
            and path.stem not in needed_names
            and path.is_file()
            and not any((place / path.stem).exists() for place in places)
        ),
    )


def _remove(unneeded: Unneeded) -> None:
    """Remove the files, then the folder, and the journal last."""
    folder = unneeded.folder
    if isinstance(folder, UPath):
        with suppress(FileNotFoundError):
            folder.fs.rm(folder.path, recursive=True)
    else:
        for file in unneeded.files:
            file.unlink(missing_ok=True)
        for place, _, _ in os.walk(folder, topdown=False) if folder else ():
            # A folder that has got another file meanwhile stays.
            with suppress(OSError):
                Path(place).rmdir()
    if unneeded.journal:
        # The journal goes last, so that a removal which is interrupted goes on next time.
        unneeded.journal.unlink(missing_ok=True)
