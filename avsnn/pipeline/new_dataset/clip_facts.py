"""Leaves out clips whose files cannot be used, and sums up lengths, sizes and rates of the rest."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.new_dataset.draft import Arrangement, Draft
from avsnn.pipeline.new_dataset.oddities import Oddities
from avsnn.pipeline.new_dataset.probe import Facts, probe_files

# The headers of so many files of a kind are read. More would take minutes.
MOST_FILES = 10_000
# A clip is short or long if its duration differs from the median by this factor.
UNUSUAL_FACTOR = 4


@dataclass(frozen=True)
class ClipFacts:
    """Numbers about the clips; empty where nothing is known.

    Attributes:
        seconds: shortest, median and longest duration in s.
        fps: number of videos of each frame rate.
        sizes: number of videos or images of each width and height in px, as ``640x480``.
        rates: number of sounds of each sample rate in Hz.
        files: number of files.
        files_read: number of files whose headers were read.
    """

    seconds: tuple[float, float, float] | None = None
    fps: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    rates: dict[str, int] = field(default_factory=dict)
    files: int = 0
    files_read: int = 0


def check_clips(
    folder: Path, arrangement: Arrangement, odd: Oddities, progress: Progress
) -> tuple[list[Draft], ClipFacts]:
    """Return the clips whose files can be used, and numbers about these clips.

    Args:
        folder: the folder of the files.
        arrangement: the clips.
        odd: receives clips that are left out, and clips that differ from the others.
        progress: receives the progress.
    """
    if arrangement.audio != "sound":
        return arrangement.drafts, ClipFacts(files=len(arrangement.drafts))
    visuals = [draft.visual for draft in arrangement.drafts]
    sounds = [draft.audio for draft in arrangement.drafts if draft.audio != draft.visual]
    seen = _read_headers(folder, visuals, arrangement.visual, progress)
    heard = _read_headers(folder, sounds, "sound", progress)
    drafts = []
    for draft in arrangement.drafts:
        visual = seen.get(draft.visual, Facts())
        sound = heard.get(draft.audio, Facts())
        if visual.fault or sound.fault:
            path = draft.visual if visual.fault else draft.audio
            odd.add(visual.fault or sound.fault, [path])
        elif draft.audio == draft.visual and draft.visual in seen and visual.rate is None:
            odd.add("has no sound", [draft.visual], kind="videos")
        else:
            drafts.append(draft)
    facts = _sum_up(drafts, seen, heard, arrangement.visual, odd)
    lost = {draft.label for draft in arrangement.drafts} - {draft.label for draft in drafts}
    odd.add("has no clip that can be used", sorted(lost), kind="classes")
    return drafts, facts


def _read_headers(
    folder: Path, paths: Sequence[str], kind: str, progress: Progress
) -> dict[str, Facts]:
    paths = sorted(set(paths))
    step = -(-len(paths) // MOST_FILES) if paths else 1
    chosen = paths[::step]
    facts = probe_files([folder / path for path in chosen], kind, progress)
    return dict(zip(chosen, facts, strict=True))


def _sum_up(
    drafts: Sequence[Draft],
    seen: dict[str, Facts],
    heard: dict[str, Facts],
    kind: str,
    odd: Oddities,
) -> ClipFacts:
    visuals = {d.visual: seen[d.visual] for d in drafts if d.visual in seen}
    sounds = {d.audio: heard.get(d.audio) or seen.get(d.audio) or Facts() for d in drafts}
    timed = visuals if kind == "video" else sounds
    seconds = {path: one.seconds for path, one in timed.items() if one.seconds}
    _add_unusual_lengths(seconds, odd)
    sizes = {path: f"{one.size[0]}x{one.size[1]}" for path, one in visuals.items() if one.size}
    fps = {path: f"{one.fps:.4g}" for path, one in visuals.items() if one.fps}
    rates = {path: f"{one.rate:,}" for path, one in sounds.items() if one.rate}
    lengths = sorted(seconds.values())
    return ClipFacts(
        seconds=(lengths[0], median(lengths), lengths[-1]) if lengths else None,
        fps=_count(fps, lambda usual: f"has another frame rate than {usual}/s", odd),
        sizes=_count(sizes, lambda usual: f"has another size than {usual}", odd),
        rates=_count(rates, lambda usual: f"has another sample rate than {usual} Hz", odd),
        files=len({path for draft in drafts for path in (draft.visual, draft.audio)}),
        files_read=len({*visuals} | {path for path in sounds if path in heard}),
    )


def _add_unusual_lengths(seconds: dict[str, float], odd: Oddities) -> None:
    if not seconds:
        return
    usual = median(seconds.values())
    for path, length in sorted(seconds.items()):
        if length * UNUSUAL_FACTOR < usual:
            what = f"is shorter than a quarter of the median, {usual:.2g} s"
        elif length > UNUSUAL_FACTOR * usual:
            what = f"is longer than four times the median, {usual:.2g} s"
        else:
            continue
        odd.add(what, [path], left_out=False)


def _count(values: dict[str, str], name: Callable[[str], str], odd: Oddities) -> dict[str, int]:
    """Count each value, the most frequent first; files with another value are odd."""
    counts = Counter(values.values())
    ordered = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    if len(ordered) > 1:
        usual = next(iter(ordered))
        others = [path for path, value in sorted(values.items()) if value != usual]
        odd.add(name(usual), others, left_out=False)
    return ordered
