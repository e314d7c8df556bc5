"""Pairs recordings of two sensors: which recordings are one clip."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from avsnn.datasets_manifest import Clip, MediaFile
from avsnn.datasets_manifest.clips import is_plain_path, split_recording
from avsnn.datasets_manifest.recordings import PART_COLUMN, Pairs, Recordings
from avsnn.pipeline.formats.membership import hash_rank

PARTS_OF_RECORDINGS = ("train", "test")


class Recording(NamedTuple):
    """A recording of one sensor.

    Attributes:
        path: path of the file, followed by the name in the file.
        label: label of the class.
        group: the group, such as a speaker; empty where the path names none.
        part: train or test.
    """

    path: str
    label: int
    group: str
    part: str


class FoundRecordings(NamedTuple):
    """The recordings of one modality.

    Attributes:
        recordings: the recordings of the classes, in the order of their paths.
        left_out: number of recordings with a label that is no class, such as sequences of digits.
        reasons: why a path is no recording, by the path.
    """

    recordings: list[Recording]
    left_out: int
    reasons: dict[str, str]


class PairedRecordings(NamedTuple):
    """The clips of a data set.

    Attributes:
        clips: the clips, in the order of part, class and recording.
        left_out: number of recordings that are in no clip, because the other modality has fewer.
        reasons: why a recording is in no clip, by the path of the recording.
    """

    clips: list[Clip]
    left_out: int
    reasons: dict[str, str]


def read_paths(recordings: Recordings, paths: Iterable[str]) -> FoundRecordings:
    """Read what the paths of one modality say about each recording.

    Args:
        recordings: how the paths are written.
        paths: the paths of everything in the files.
    """
    found, reasons, left_out = [], {}, 0
    pattern = re.compile(recordings.path)
    for path in sorted(paths):
        match = pattern.fullmatch(path)
        if not is_plain_path(path):
            reasons[path.encode("unicode_escape").decode()] = "has a name that is no plain path"
            continue
        if match is None:
            reasons[path] = "has a name of another form than those of recordings"
            continue
        texts = match.groupdict()
        label = recordings.labels.get(texts["label"] or "")
        if label is None:
            left_out += 1
            continue
        part = (texts.get("part") or "").lower()
        if recordings.train_share is None and part not in PARTS_OF_RECORDINGS:
            reasons[path] = f"is in the part {part!r}, and a part is train or test"
            continue
        found.append(Recording(path, label, texts.get("group") or "", part))
    if recordings.train_share is not None:
        found = _cut(found, recordings.train_share)
    return FoundRecordings(found, left_out, reasons)


def _cut(recordings: list[Recording], train_share: float) -> list[Recording]:
    """Put a share of each class into the train part, drawn by the hash of the paths."""
    ranked = defaultdict(list)
    for recording in sorted(recordings, key=lambda recording: hash_rank(recording.path)):
        ranked[recording.label].append(recording.path)
    train = {path for paths in ranked.values() for path in paths[: round(train_share * len(paths))]}
    return [
        recording._replace(part="train" if recording.path in train else "test")
        for recording in recordings
    ]


def pair_recordings(
    pairs: Pairs, audio: Sequence[Recording], visual: Sequence[Recording]
) -> PairedRecordings:
    """Pair recordings of one part and one class, in the order of their paths.

    Every recording of the modality that ``pairs.each`` names is in one clip. The recordings of the
    other modality are taken in order, and from the start again where they are fewer.
    """
    leading, following = (audio, visual) if pairs.each == "audio" else (visual, audio)
    others, used = defaultdict(list), set()
    for recording in following:
        others[recording.part, recording.label].append(recording)
    clips, reasons = [], {}
    names = Counter(_key(recording) for recording in leading)
    count: dict[tuple[str, int], int] = defaultdict(int)
    order = sorted(leading, key=lambda recording: (recording.part, recording.label, recording.path))
    for recording in order:
        place = (recording.part, recording.label)
        if not others[place]:
            reasons[recording.path] = (
                f"has no {'image' if pairs.each == 'audio' else 'sound'} of its class in the part "
                f"{recording.part}"
            )
            continue
        other = others[place][count[place] % len(others[place])]
        count[place] += 1
        used.add(other.path)
        heard, seen = (recording, other) if pairs.each == "audio" else (other, recording)
        key = _key(recording, is_unique=names[_key(recording)] == 1)
        clips.append(_clip(key, recording, heard, seen))
    return PairedRecordings(clips, len(following) - len(used), reasons)


def _key(leading: Recording, *, is_unique: bool = True) -> str:
    """Return the key of a clip: part and name of the recording that is in no other clip.

    Where folders hold recordings of the same name, the key has the whole path.
    """
    path = PurePosixPath(leading.path)
    name = path.name.partition(".")[0]
    if not is_unique:
        name = str(path.with_name(name))
    return re.sub(r"[^\w-]", "_", f"{leading.part}-{name}")


def _clip(key: str, leading: Recording, audio: Recording, visual: Recording) -> Clip:
    return Clip(
        key=key,
        label=leading.label,
        group=audio.group or visual.group,
        columns={PART_COLUMN: leading.part},
        audio=_media_file(audio),
        visual=_media_file(visual),
    )


def _media_file(recording: Recording) -> MediaFile:
    path, member = split_recording(recording.path)
    return MediaFile(path, None, None, member=member)
