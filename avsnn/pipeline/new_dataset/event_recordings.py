"""Finds clips in recordings of event cameras and cochleas: paired by name, or class by class."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from avsnn.datasets_manifest.clips import composed, is_plain_path
from avsnn.datasets_manifest.recordings import EventFormat
from avsnn.errors import UserError
from avsnn.pipeline.media import sandbox
from avsnn.pipeline.media.errors import MediaError
from avsnn.pipeline.media.event_files import list_recordings
from avsnn.pipeline.new_dataset.class_folders import arrange_visuals
from avsnn.pipeline.new_dataset.draft import PART_OF_WORD, Arrangement, Draft
from avsnn.pipeline.new_dataset.found_files import FoundFile, FoundFiles
from avsnn.pipeline.new_dataset.oddities import Oddities

BY_HAND = "docs/events.md shows the YAML and the table to write by hand"
CameraFormat = Literal["aedat2", "n-mnist"]
CochleaFormat = Literal["n-tidigits", "shd"]
CAMERA_FORMAT: dict[str, CameraFormat] = {".aedat": "aedat2", ".bin": "n-mnist"}


@dataclass(frozen=True)
class _Utterance:
    """A recording of a cochlea.

    Attributes:
        path: path of the file, followed by the name in the file.
        name: folder and name by which the recording may belong to a recording of a camera.
        label: the class that the name in the file says; empty if it says none.
        part: the part that the name of the file or in the file says; empty if neither says one.
        group: the speaker; empty if nothing says the speaker.
    """

    path: str
    name: str
    label: str
    part: str
    group: str


def arrange_events(folder: Path, found: FoundFiles, odd: Oddities) -> Arrangement:
    """Return the clips of recordings in folders of classes, and of a cochlea in HDF5 files.

    A recording of a camera and a recording of a cochlea are one clip if they have the same name.
    If no names are the same, recordings of one class and one part are paired in order, each once.

    Raises:
        UserError: recordings of one sensor are missing, or nothing says which belong together.
    """
    visuals, visual_format = _camera_recordings(folder, found, odd)
    sounds, sound_format = _cochlea_recordings(folder, found, odd)
    if not visuals or not sounds:
        missing = "event camera (.aedat, .bin, or a .zip of these)" if not visuals else ""
        missing = missing or "cochlea (.h5 or .hdf5 of SHD or N-TIDIGITS)"
        raise UserError(
            f"{folder} holds recordings of event sensors, and none of a {missing} that avsnn "
            f"reads; a clip needs both. {BY_HAND}."
        )
    drafts, notes, group_word = arrange_visuals(visuals, odd)
    paired = max((_pair_by_name(drafts, sounds, words) for words in (2, 1)), key=len)
    found_by = "pairs of the same name, one folder for each class"
    if not paired:
        paired, group_word = _pair_by_class(folder, drafts, sounds), "speaker"
        found_by = "paired class by class, in order"
        notes.append("Recordings of one class are paired in order, each once.")
    kept = {draft.visual for draft in paired}
    alone = [draft.visual for draft in drafts if draft.visual not in kept]
    odd.add("has no recording of a cochlea that belongs to it", alone)
    described = "recordings of an event camera and a cochlea"
    return Arrangement(paired, visual_format, sound_format, described, found_by, notes, group_word)


def _pair_by_name(drafts: Sequence[Draft], sounds: Sequence[_Utterance], words: int) -> list[Draft]:
    """Return clips whose recordings agree in the last words of their paths: folder and name."""

    def last(path: str) -> str:
        return "/".join(path.split("/")[-words:])

    by_name = defaultdict(list)
    for sound in sounds:
        by_name[last(sound.name)].append(sound)
    seen = Counter(last(draft.path) for draft in drafts)
    return [
        replace(draft, audio=by_name[name][0].path)
        for draft in drafts
        if len(by_name[name := last(draft.path)]) == seen[name] == 1
    ]


def _camera_recordings(
    folder: Path, found: FoundFiles, odd: Oddities
) -> tuple[list[FoundFile], CameraFormat]:
    """Return the recordings of the format that most recordings have, in files and in zips."""
    by_format: dict[CameraFormat, list[FoundFile]] = {form: [] for form in CAMERA_FORMAT.values()}
    for file in found.camera:
        by_format[CAMERA_FORMAT[file.suffix]].append(file)
    for file in found.zips:
        for form in by_format:
            names = _recordings_or_none(folder / file.path, form)
            plain = [name for name in names or [] if is_plain_path(name)]
            by_format[form] += [FoundFile(f"{file.path}/{name}", 1) for name in plain]
    most = max(by_format, key=lambda form: len(by_format[form]))
    for form, others in by_format.items():
        if form != most:
            what = f"is a recording of another format than {most}"
            odd.add(what, [file.path for file in others])
    return by_format[most], most


def _cochlea_recordings(
    folder: Path, found: FoundFiles, odd: Oddities
) -> tuple[list[_Utterance], CochleaFormat]:
    readers: dict[CochleaFormat, Callable[[FoundFile, str, int], _Utterance]] = {
        "shd": _shd_utterance,
        "n-tidigits": _ntidigits_utterance,
    }
    by_format: dict[CochleaFormat, list[_Utterance]] = {form: [] for form in readers}
    for file in found.cochlea:
        for form, utterance in readers.items():
            names = _recordings_or_none(folder / file.path, form)
            if names is not None:
                by_format[form] += [utterance(file, name, len(names)) for name in names]
                break
        else:
            odd.add("is no HDF5 file of the layout of SHD or N-TIDIGITS", [file.path])
    most = max(by_format, key=lambda form: len(by_format[form]))
    return by_format[most], most


def _recordings_or_none(file: Path, form: EventFormat) -> list[str] | None:
    """Return the names of the recordings in a file; None if the file has another format."""
    try:
        return sandbox.call(list_recordings, file, form)
    except (MediaError, OSError):
        return None


def _path_of(file: FoundFile) -> str:
    return "/".join((*file.folders, file.stem))


def _shd_utterance(file: FoundFile, name: str, count: int) -> _Utterance:
    _, speaker, label = name.split("-", 2)
    words = re.split(r"[\W_]+", file.stem.lower())
    part = next((PART_OF_WORD[word] for word in words if word in PART_OF_WORD), "")
    own_name = _path_of(file) if count == 1 else name
    return _Utterance(f"{file.path}/{name}", own_name, label, part, speaker)


def _ntidigits_utterance(file: FoundFile, name: str, count: int) -> _Utterance:
    part, _, key = name.partition("/")
    words = key.split("-")
    # N-TIDIGITS18 names gender, speaker, take and digits: man-ae-a-1. The digit zero is z.
    label = {"z": "0"}.get(words[-1], words[-1])
    own_name = _path_of(file) if count == 1 else composed(key)
    group = "-".join(words[:2]) if len(words) > 3 else ""
    return _Utterance(f"{file.path}/{name}", own_name, label, part if count > 1 else "", group)


def _pair_by_class(
    folder: Path, drafts: Sequence[Draft], sounds: Sequence[_Utterance]
) -> list[Draft]:
    """Return clips of recordings of the same class, and of the same part where both say a part.

    Raises:
        UserError: the recordings of the two sensors have no class in common.
    """
    has_parts = all(draft.part for draft in drafts) and all(sound.part for sound in sounds)
    waiting = defaultdict(list)
    for sound in sorted(sounds, key=lambda sound: sound.path):
        waiting[sound.label, sound.part if has_parts else ""].append(sound)
    paired = []
    for draft in drafts:
        part = draft.part if has_parts else ""
        if sounds_left := waiting[draft.label, part]:
            sound = sounds_left.pop(0)
            paired.append(replace(draft, audio=sound.path, group=sound.group, part=part))
    if len({draft.label for draft in paired}) < 2:
        names = ", ".join(sorted({draft.label for draft in drafts})[:3])
        heard = ", ".join(sorted({sound.label for sound in sounds})[:3])
        raise UserError(
            f"{folder}: nothing says which recordings belong together: the names differ, the "
            f"folders of the camera are {names}, and the classes of the cochlea are {heard}. Give "
            f"the folders the names of the classes of the cochlea, or {BY_HAND}."
        )
    return paired
