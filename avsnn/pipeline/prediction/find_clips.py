"""Finds the clips in files and folders that a person names: which files are one clip."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from avsnn.datasets_manifest.clips import split_recording
from avsnn.datasets_manifest.recordings import AUDIO_SUFFIXES
from avsnn.errors import UserError
from avsnn.pipeline.prepare.folder_layout import walk_files

# Suffixes of files that hold sound alone. Every other file may hold a picture.
SOUND_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".au"),
    *(".wma", ".w64", ".caf", ".amr", ".ac3", ".eac3", ".wv", ".ape", ".tta", ".gsm", ".mka"),
)

# Suffixes of files that lie beside clips and are none. In a folder, these files are passed over.
OTHER_SUFFIXES = (
    *(".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".html", ".pdf"),
    *(".ini", ".db", ".log", ".srt", ".vtt", ".py", ".sh", ".sha256", ".md5"),
)


class File(NamedTuple):
    """A file that may hold a part of a clip, or a recording in a file of many recordings.

    Attributes:
        path: path of the file.
        member: name of the recording in the file; empty where the file is the recording.
        top: the folder that the person named, or the folder of a file that the person named.
        is_sound: whether the name says that the file holds sound alone.
    """

    path: Path
    member: str
    top: Path
    is_sound: bool

    @property
    def name(self) -> str:
        """The path of the file, followed by the name of the recording."""
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @property
    def stem(self) -> str:
        """The name without folder and suffix."""
        return self.member.rpartition("/")[2].partition(".")[0] if self.member else self.path.stem


class FoundClip(NamedTuple):
    """The files of one clip.

    Attributes:
        visual: the file that shows the clip, and may hold the sound of the clip too; None where
            there is sound alone.
        sound: the file of the sound; None where the sound has no file of its own.
    """

    visual: File | None
    sound: File | None


class FoundClips(NamedTuple):
    """What files and folders hold.

    Attributes:
        clips: the clips, in the order of the first file of each.
        passed_over: number of files in folders that are no clips by their names.
    """

    clips: list[FoundClip]
    passed_over: int


def find_clips(paths: Iterable[Path], *, has_events: bool) -> FoundClips:
    """Find the clips in files and folders.

    A sound and a picture (or a video) are one clip if they have the same path without the suffix.
    Sounds and pictures that are left over are one clip if their paths below the named folder differ
    in the first folder only, as in ``audio/CLASS/x.wav`` and ``video/CLASS/x.mp4``, or else if they
    are the only sound and the only picture of their stem. A named file that is still left over is
    paired with the file of the same name that lies beside the named file, so that the file gets the
    answer that its folder would give. Every other file is a clip by itself.

    Args:
        paths: files and folders; of event data, also ``FILE.hdf5/NAME`` and ``FILE.zip/NAME`` for
            a recording in a file. Folders are searched with all folders inside.
        has_events: whether the files are recordings of event sensors.

    Raises:
        UserError: a path does not exist, a folder cannot be read, or no file could be a clip.
    """
    files: dict[str, File] = {}
    named = dict.fromkeys(paths)
    passed_over = 0
    for path in named:
        found, others = _files_of(path, has_events=has_events)
        passed_over += others
        for file in found:
            files.setdefault(file.name, file)
    if not files:
        words = ", ".join(map(str, named)) or "the list of clips"
        raise UserError(f"{words} holds no file that could be a clip; give files or a folder.")
    pairs = _pair(list(files.values()))
    single = [
        file
        for file in files.values()
        if file.path in named and not file.member and file.name not in pairs
    ]
    partner = pairs | _pair_beside(single, set(files), has_events=has_events)
    return FoundClips(_clips(list(files.values()), partner), passed_over)


def _files_of(path: Path, *, has_events: bool) -> tuple[list[File], int]:
    """Return the files of one path that a person named, and the number of files passed over."""

    def as_file(file: Path, member: str, top: Path) -> File:
        return File(file, member, top, is_sound=_is_sound(file, has_events=has_events))

    # Not `Path.is_dir`, which raises an exception for a name that is too long.
    if os.path.isdir(path):  # noqa: PTH112
        found = list(walk_files(path))
        wanted = [file for file in found if _may_be_clip(file, path)]
        return [as_file(file, "", path) for file in wanted], len(found) - len(wanted)
    if os.path.exists(path):  # noqa: PTH110
        return [as_file(path, "", path.parent)], 0
    if has_events:
        file, member = split_recording(str(path))
        if member and os.path.isfile(file):  # noqa: PTH113
            return [as_file(Path(file), member, Path(file).parent)], 0
    raise UserError(f"{path} does not exist; give files or folders with clips.")


def _is_sound(file: Path, *, has_events: bool) -> bool:
    return file.suffix.lower() in (AUDIO_SUFFIXES if has_events else SOUND_SUFFIXES)


def _may_be_clip(file: Path, top: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in file.relative_to(top).parts)
    return not is_hidden and file.suffix.lower() not in OTHER_SUFFIXES


def _pair(files: list[File]) -> dict[str, File]:
    """Return the other file of the clip, by the name of each file that has a partner."""
    partner: dict[str, File] = {}
    for place in (_path_without_suffix, _path_below_first_folder, _stem):
        groups = defaultdict(list)
        for file in files:
            if file.name not in partner:
                groups[place(file)].append(file)
        for group in groups.values():
            sounds = [file for file in group if file.is_sound]
            visuals = [file for file in group if not file.is_sound]
            if len(sounds) == len(visuals) == 1:
                partner[sounds[0].name], partner[visuals[0].name] = visuals[0], sounds[0]
    return partner


def _pair_beside(files: list[File], found: set[str], *, has_events: bool) -> dict[str, File]:
    """Return the partner that lies beside a file, by the name of each file that has a partner.

    Args:
        files: the files that were named one by one and have no partner yet.
        found: names of all files that belong to the clips already.
        has_events: whether the files are recordings of event sensors.
    """
    partner: dict[str, File] = {}
    folders = {top: _stems_in(top) for top in {file.top for file in files}}
    for file in files:
        others = [
            File(path, "", file.top, is_sound=_is_sound(path, has_events=has_events))
            for path in folders[file.top][file.stem]
            if path != file.path
        ]
        if len(others) == 1 and others[0].is_sound != file.is_sound:
            (other,) = others
            if other.name not in found:
                partner[file.name] = other
    return partner


def _stems_in(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a folder that may be clips, by stem; none if the folder is unreadable."""
    stems: dict[str, list[Path]] = defaultdict(list)
    try:
        paths = list(folder.iterdir())
    except OSError:
        paths = []
    for path in paths:
        # Not `Path.is_dir`, which raises an exception for a link that leads to itself.
        if _may_be_clip(path, folder) and not os.path.isdir(path):  # noqa: PTH112
            stems[path.stem].append(path)
    return stems


def _clips(files: list[File], partner: dict[str, File]) -> list[FoundClip]:
    """Return the clips of some files, in the order of the first file of each clip."""
    clips, seen = [], set[str]()
    for file in files:
        other = partner.get(file.name)
        if file.name in seen:
            continue
        seen |= {file.name, *([other.name] if other else [])}
        clips.append(FoundClip(other, file) if file.is_sound else FoundClip(file, other))
    return clips


Place = Callable[[File], tuple[str, ...]]


def _path_without_suffix(file: File) -> tuple[str, ...]:
    return (str(file.path.parent), file.stem)


def _path_below_first_folder(file: File) -> tuple[str, ...]:
    below = file.path.parent.relative_to(file.top).parts
    return (str(file.top), *below[1:], file.stem)


def _stem(file: File) -> tuple[str, ...]:
    return (file.stem,)
