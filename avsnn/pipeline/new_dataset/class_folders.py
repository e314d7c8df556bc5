"""Finds clips in folders: which files are one clip, and which folder names the class."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avsnn.errors import UserError
from avsnn.pipeline.new_dataset.draft import PART_OF_WORD, Arrangement, Draft
from avsnn.pipeline.new_dataset.found_files import FoundFile, FoundFiles
from avsnn.pipeline.new_dataset.oddities import Oddities

# Names of folders that hold the clips of one speaker: `Actor_01`, `speaker 3`, `subject-12`.
SPEAKER_FOLDER = re.compile(
    r"(actor|speaker|spk|subject|subj|person|participant|patient|user|session)[\W_]*\w{1,6}", re.I
)
# Sounds in the order in which avsnn takes them where one clip has several.
SOUND_ORDER = (".wav", ".flac")
# avsnn looks so many folders deep for the folder that tells sounds from pictures.
DEEPEST_KIND_FOLDER = 4


@dataclass(frozen=True)
class _Placed:
    """A file with the folders that are left to look at."""

    file: FoundFile
    folders: tuple[str, ...]
    part: str = ""
    part_folder: str = ""

    def name_without(self, level: int | None) -> tuple[str, ...]:
        """Return folders and stem, without the folder of one level."""
        folders = self.folders
        if level is not None:
            folders = folders[:level] + folders[level + 1 :]
        return (*folders, self.file.stem)


def arrange_folders(folder: Path, found: FoundFiles, odd: Oddities) -> Arrangement:
    """Return the clips of a folder in which every class has a folder.

    Args:
        folder: the folder, for messages.
        found: the files in the folder.
        odd: receives the files that belong to no clip.

    Raises:
        UserError: the folder holds no clips of two classes.
    """
    if not found.videos and not (found.images and found.sounds):
        raise UserError(_why_no_clips(folder, found))
    parts = _parts_by_folder([_Placed(file, file.folders) for file in found.media], odd)
    placed = {one.file.path: one for one in parts}
    videos, images, sounds = (
        [placed[file.path] for file in files if file.path in placed]
        for files in (found.videos, found.images, found.sounds)
    )
    video_level, _ = _best_level(videos, sounds)
    image_level, image_pairs = _best_level(images, sounds)
    takes_videos = len(videos) >= image_pairs
    visuals, level = (videos, video_level) if takes_videos else (images, image_level)
    others = images if takes_videos else videos
    if not visuals or not (takes_videos or image_pairs):
        raise UserError(_why_no_clips(folder, found))
    clips = _pair(visuals, sounds, level, odd, takes_videos=takes_videos)
    what = "is an image beside videos" if takes_videos else "is a video beside images with sounds"
    odd.add(what, [one.file.path for one in others])
    drafts, notes, group_word = _label(clips, odd)
    if len({draft.label for draft in drafts}) < 2:
        raise UserError(_why_one_class(folder, drafts))
    described = "videos with sound" if takes_videos else "images with sound files"
    if takes_videos and all(draft.audio != draft.visual for draft in drafts):
        described = "videos with sound files"
    found_by = "one folder for each class"
    if any(draft.part for draft in drafts):
        found_by += ", in folders of train, val or test"
    return Arrangement(
        drafts,
        "video" if takes_videos else "image",
        "sound",
        described,
        found_by,
        notes,
        group_word,
    )


def arrange_visuals(
    files: Sequence[FoundFile], odd: Oddities
) -> tuple[list[Draft], list[str], str]:
    """Return the clips of visual files alone, as `arrange_folders` finds classes and parts.

    Returns:
        the clips, without a sound; sentences for the user; and the word for a group.
    """
    placed = _parts_by_folder([_Placed(file, file.folders) for file in files], odd)
    return _label([(one, "") for one in placed], odd)


def _parts_by_folder(placed: Sequence[_Placed], odd: Oddities) -> list[_Placed]:
    """Take the folders of train, val and test out of the paths, where there are such folders."""
    deepest = max((len(one.folders) for one in placed), default=0)
    # From the last folder to the first, because a zip of a part may hold a folder of the part.
    for level in reversed(range(deepest)):
        names = [_part_of(one, level) for one in placed]
        parts = [part for part in names if part]
        if len(set(parts)) < 2 or 2 * len(parts) < len(placed):
            continue
        outside = [one.file.path for one, part in zip(placed, names, strict=True) if not part]
        odd.add("is in no folder of train, val or test", outside)
        placed = [
            replace(
                one,
                folders=one.folders[:level] + one.folders[level + 1 :],
                part=part,
                part_folder=one.folders[level],
            )
            for one, part in zip(placed, names, strict=True)
            if part
        ]
    return list(placed)


def _part_of(one: _Placed, level: int) -> str:
    """Return the part that the folder of a level names; empty if it names none."""
    name = one.folders[level].lower().removesuffix(".zip") if level < len(one.folders) else ""
    return PART_OF_WORD.get(name, "")


def _best_level(visuals: Sequence[_Placed], sounds: Sequence[_Placed]) -> tuple[int | None, int]:
    """Return the level of the folder that tells sounds from visual files, and the number of pairs.

    The level is None where sounds lie beside their visual files.
    """
    best: tuple[int | None, int] = (None, 0)
    for level in (None, *range(DEEPEST_KIND_FOLDER)):
        names = {(one.part, one.name_without(level)) for one in sounds}
        pairs = len(names & {(one.part, one.name_without(level)) for one in visuals})
        if pairs > best[1]:
            best = (level, pairs)
    return best


def _pair(
    visuals: Sequence[_Placed],
    sounds: Sequence[_Placed],
    level: int | None,
    odd: Oddities,
    *,
    takes_videos: bool,
) -> list[tuple[_Placed, str]]:
    """Return every visual file, without the folder of its kind, with the path of its sound."""

    def rank(one: _Placed) -> tuple[int, str]:
        suffix = one.file.suffix
        place = SOUND_ORDER.index(suffix) if suffix in SOUND_ORDER else len(SOUND_ORDER)
        return place, one.file.path

    sound_of: dict[tuple[str, tuple[str, ...]], _Placed] = {}
    for one in sorted(sounds, key=rank):
        first = sound_of.setdefault((one.part, one.name_without(level)), one)
        if first is not one:
            odd.add("is the sound of a clip that has a sound already", [one.file.path])
    clips: dict[tuple[str, tuple[str, ...]], tuple[_Placed, str]] = {}
    alone = []
    for one in sorted(visuals, key=lambda one: one.file.path):
        name = (one.part, one.name_without(level))
        sound = sound_of.get(name)
        if name in clips:
            odd.add("has the name of another clip beside it", [one.file.path])
        elif sound is None and not takes_videos:
            alone.append(one.file.path)
        else:
            path = sound.file.path if sound else one.file.path
            clips[name] = (replace(one, folders=name[1][:-1]), path)
    odd.add("has no sound of the same name", alone)
    lonely = [one.file.path for name, one in sound_of.items() if name not in clips]
    odd.add("is a sound without a video or an image of the same name", sorted(lonely))
    own_sound = [one.file.path for one, path in clips.values() if path == one.file.path]
    if len(own_sound) < len(clips):
        what = "has no sound file; the sound is taken out of the video"
        odd.add(what, own_sound, kind="videos", left_out=False)
    return list(clips.values())


def _label(
    clips: Sequence[tuple[_Placed, str]], odd: Oddities
) -> tuple[list[Draft], list[str], str]:
    """Return the clips with their classes, sentences for the user, and the word for a group."""
    inside = [one.folders for one, _ in clips if one.folders]
    # The last folder is a class, even if it is the only one.
    shallowest = min(map(len, inside), default=1)
    skipped = min(_count_shared_folders(inside), shallowest - 1)
    notes, group_word, class_level = [], "", skipped
    tops = {folders[skipped] for folders in inside if len(folders) > skipped}
    speakers = [SPEAKER_FOLDER.fullmatch(name) for name in tops]
    below = {folders[skipped + 1] for folders in inside if len(folders) > skipped + 1}
    if len(tops) > 1 and all(speakers) and len(below) > 1:
        class_level = skipped + 1
        group_word = next(match[1] for match in speakers if match).lower()
        notes.append(
            f"The folders {_some(sorted(tops))} are speakers; the folders in them are the classes."
        )
    drafts: dict[str, Draft] = {}
    for one, sound in clips:
        if len(one.folders) <= class_level:
            odd.add("is in no folder of a class", [one.file.path])
            continue
        place = "/".join((one.part_folder, *one.folders[skipped:], one.file.stem)).strip("/")
        place = one.file.path if place in drafts else place
        label = one.folders[class_level]
        drafts[place] = Draft(one.file.path, sound, label, place, part=one.part)
    return [drafts[place] for place in sorted(drafts)], notes, group_word


def _count_shared_folders(paths: Sequence[tuple[str, ...]]) -> int:
    """Return how many folders at the start are the same in all paths."""
    count = 0
    for names in zip(*paths, strict=False):
        if len(set(names)) > 1:
            return count
        count += 1
    return count


def _some(names: Sequence[str]) -> str:
    """Return the first names of a list, as text."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _why_no_clips(folder: Path, found: FoundFiles) -> str:
    counts = {
        "videos": len(found.videos),
        "images": len(found.images),
        "sounds": len(found.sounds),
    }
    there = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    missing = "no video, image or sound" if not there else f"no clips: {there}"
    if found.images and found.sounds:
        advice = "give an image and its sound the same name, such as cat/1.jpg and cat/1.wav"
    elif found.images:
        advice = "put a sound of the same name beside each image, such as cat/1.jpg and cat/1.wav"
    elif found.sounds:
        advice = "put a video or an image of the same name beside each sound"
    else:
        advice = "put the clips of each class into a folder of the class, such as cat/1.mp4"
    return f"{folder} holds {missing}; {advice}."


def _why_one_class(folder: Path, drafts: Iterable[Draft]) -> str:
    labels = Counter(draft.label for draft in drafts)
    if not labels:
        return (
            f"{folder} holds clips, but no folders of classes; put the clips of each class into a "
            "folder of the class, such as cat/1.mp4, or add a CSV with the columns file and class."
        )
    name, count = labels.most_common(1)[0]
    return (
        f"{folder} holds clips of one class only, {name!r} ({count:,} clips); a data set needs two "
        "classes or more. Put the clips of each class into a folder of the class."
    )
