"""Finds the clips of a data set in folders: which audio file and which visual file are one clip."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from avsnn.datasets_manifest.clips import KEY
from avsnn.datasets_manifest.schema import FolderLayout
from avsnn.errors import UserError


class PairedFiles(NamedTuple):
    """The files of a data set, sorted into clips.

    Attributes:
        clips: path of the audio file and path of the visual file, by the key of the clip.
        reasons: why a file belongs to no clip, by the path of the file.
    """

    clips: dict[str, tuple[str, str]]
    reasons: dict[str, str]


def find_layout_folder(layout: FolderLayout, source: Path) -> Path:
    """Return the folder that holds the layout's folders: the source, or a folder in the source.

    Raises:
        UserError: neither the source nor a folder in the source holds the layout's folders.
    """
    inner = sorted(path for path in source.iterdir() if path.is_dir())
    for folder in (source, *inner):
        if (folder / layout.audio).is_dir() and (folder / layout.visual).is_dir():
            return folder
    raise UserError(
        f"--source {source} holds no folders {layout.audio} and {layout.visual}; "
        "give the folder that holds both."
    )


def list_files(layout: FolderLayout, source: Path) -> Iterator[str]:
    """Yield the path of every file in the layout's folders, below ``source``."""
    for name in (layout.audio, layout.visual):
        for folder, _, files in os.walk(source / name, followlinks=True):
            for file in files:
                yield (Path(folder) / file).relative_to(source).as_posix()


def pair_files(layout: FolderLayout, classes: tuple[str, ...], paths: set[str]) -> PairedFiles:
    """Pair audio files and visual files of the same stem; give every other file a reason.

    Args:
        layout: how the files lie in folders.
        classes: names of the classes, in the order of their labels.
        paths: the paths of all files, below the folder that holds the layout's folders.
    """
    reasons: dict[str, str] = {}
    path_by_stem: dict[str, dict[str, str]] = {layout.audio: {}, layout.visual: {}}
    for path in sorted(paths):
        folder, stem = PurePosixPath(path).parts[0], PurePosixPath(path).stem
        paths_of_kind = path_by_stem[folder]
        try:
            read_path(layout, classes, path)
        except ValueError as error:
            reasons[path] = str(error)
            continue
        if stem in paths_of_kind:
            reasons[path] = f"has the name of another clip, {paths_of_kind[stem]}"
        else:
            paths_of_kind[stem] = path
    audio, visual = path_by_stem[layout.audio], path_by_stem[layout.visual]
    reasons |= {audio[key]: "has no image" for key in audio.keys() - visual.keys()}
    reasons |= {visual[key]: "has no sound" for key in visual.keys() - audio.keys()}
    clips = {key: (audio[key], visual[key]) for key in sorted(audio.keys() & visual.keys())}
    return PairedFiles(clips, reasons)


def read_path(layout: FolderLayout, classes: tuple[str, ...], path: str) -> tuple[int, str]:
    """Return the label and the group of the clip that a file belongs to.

    Raises:
        ValueError: the file belongs to no clip; the message is the reason.
    """
    folder, *between, name = PurePosixPath(path).parts
    suffix = layout.audio_suffix if folder == layout.audio else layout.visual_suffix
    if len(between) != 1 or between[0] not in classes:
        raise ValueError("is not in the folder of a class")
    stem = name.removesuffix(suffix)
    if stem == name:
        raise ValueError(f"is not a {suffix} file")
    match = re.fullmatch(layout.stem, stem)
    if match is None or not KEY.fullmatch(stem):
        raise ValueError("has a name of another form than those of clips")
    label = classes.index(between[0])
    if match.groupdict().get("label", str(label)) != str(label):
        raise ValueError(f"is in the folder {between[0]}, but its name has another class")
    return label, match["group"]
