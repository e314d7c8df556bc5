"""Finds the clips of a data set in folders: which audio file and which visual file are one clip."""

import os
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from avsnn.datasets_manifest.clips import KEY, composed
from avsnn.datasets_manifest.schema import FolderLayout
from avsnn.errors import UserError

# Why a file is no clip whose folder is not called like a class.
NO_CLASS = "is not in the folder of a class"


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
        f"{source} holds no folders {layout.audio} and {layout.visual}; give the folder that holds "
        "both, as --source or as the folder of the YAML."
    )


def list_files(layout: FolderLayout, source: Path) -> Iterator[str]:
    """Yield the path of every file in the layout's folders, below ``source``.

    A path that holds bytes that are not UTF-8, or characters that cannot be printed, has escapes in
    their place. No clip has such a path, so nobody opens the file by this path.

    Raises:
        UserError: a folder cannot be read.
    """
    for name in (layout.audio, layout.visual):
        for file in walk_files(source / name):
            path = file.relative_to(source).as_posix()
            yield path if path.isprintable() else path.encode("unicode_escape").decode()


def walk_files(top: Path) -> Iterator[Path]:
    """Yield every file below a folder; links are followed, and each real folder is read once.

    Folders come before links, so that a folder is found under its own name and not under the name
    of a link that leads to the folder.
    """
    folders, links = deque([top]), deque[Path]()
    seen = set()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        try:
            stat = folder.stat()
            if (stat.st_dev, stat.st_ino) in seen:
                continue
            seen.add((stat.st_dev, stat.st_ino))
            entries = sorted(folder.iterdir())
        except OSError as error:
            raise UserError(
                f"{folder} cannot be read: {error.strerror}. Allow reading, or move the folder "
                "out of the source folder."
            ) from None
        for entry in entries:
            # Not `Path.is_dir`, which raises an exception for a link that leads to itself.
            if not os.path.isdir(entry):  # noqa: PTH112
                yield entry
            elif entry.is_symlink():
                links.append(entry)
            else:
                folders.append(entry)


def pair_files(
    layout: FolderLayout,
    classes: tuple[str, ...],
    paths: set[str],
    known: Mapping[tuple[str, str], str],
) -> PairedFiles:
    """Pair audio files and visual files of one class and one stem; give other files a reason.

    The key of a clip is its stem. Where several classes have a clip of the same stem, the key is
    the class and the stem.

    Args:
        layout: how the files lie in folders.
        classes: names of the classes, in the order of their labels.
        paths: the paths of all files, below the folder that holds the layout's folders.
        known: the keys that clips have already, by audio path and visual path.
    """
    reasons: dict[str, str] = {}
    audio: dict[tuple[str, str], str] = {}
    visual: dict[tuple[str, str], str] = {}
    for path in sorted(paths):
        try:
            read_path(layout, classes, path)
        except ValueError as error:
            reasons[path] = str(error)
            continue
        folder, class_name, name = PurePosixPath(path).parts
        files = audio if folder == layout.audio else visual
        clip = composed(class_name), composed(PurePosixPath(name).stem)
        if clip in files:
            reasons[path] = f"has the name of {files[clip]}, in another spelling of Unicode"
            continue
        files[clip] = path
    reasons |= {audio[clip]: "has no image" for clip in audio.keys() - visual.keys()}
    reasons |= {visual[clip]: "has no sound" for clip in visual.keys() - audio.keys()}
    pairs = {clip: (audio[clip], visual[clip]) for clip in sorted(audio.keys() & visual.keys())}
    clips = {known[files]: files for files in pairs.values() if files in known}
    clips_of_stem = Counter(stem for _, stem in pairs)
    for (class_name, stem), paths_of_clip in pairs.items():
        if paths_of_clip in known:
            continue
        key = stem
        if clips_of_stem[stem] > 1 or stem in clips:
            key = re.sub(r"[^\w-]", "_", f"{class_name}-{stem}")
        if key in clips:
            other = clips[key][0]
            reasons |= dict.fromkeys(paths_of_clip, f"has the name of another clip, {other}")
        else:
            clips[key] = paths_of_clip
    return PairedFiles(dict(sorted(clips.items())), reasons)


def read_path(layout: FolderLayout, classes: tuple[str, ...], path: str) -> tuple[int, str]:
    """Return the label and the group of the clip that a file belongs to.

    Raises:
        ValueError: the file belongs to no clip; the message is the reason.
    """
    folder, *between, name = PurePosixPath(path).parts
    suffix = layout.audio_suffix if folder == layout.audio else layout.visual_suffix
    names = [composed(name) for name in classes]
    if len(between) != 1 or composed(between[0]) not in names:
        raise ValueError(NO_CLASS)
    stem = composed(name.removesuffix(suffix))
    if stem == composed(name):
        raise ValueError(f"is not a {suffix} file")
    match = re.fullmatch(layout.stem, stem)
    if match is None or not KEY.fullmatch(stem):
        raise ValueError("has a name of another form than those of clips")
    label = names.index(composed(between[0]))
    if match.groupdict().get("label", str(label)) != str(label):
        raise ValueError(f"is in the folder {between[0]}, but its name has another class")
    return label, match["group"] or ""
