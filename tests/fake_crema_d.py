"""Makes a data set like CREMA-D: N clips in the true layout, some of the clips with defects."""

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from tests.defects import DEFECTS
from tests.fake_clips import EMOTIONS, Files, make_clip, wav_seconds

SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
ACTORS = range(1001, 1092)


@dataclass(frozen=True)
class Expected:
    """What ``avsnn prepare`` must do with a clip that has a defect.

    Attributes:
        defect: name of the defect.
        path: the damaged file.
        stage: the stage that must refuse the clip; None where the clip is usable.
        reason: words of the reason that the stage must record, as a regular expression.
    """

    defect: str
    path: str
    stage: str | None
    reason: str = ""


@dataclass
class FakeCremaD:
    """The data set that :func:`make` wrote.

    Attributes:
        folder: holds ``AudioWAV/`` and ``VideoFlash/``; serves as ``--source`` or behind a server.
        rows: the rows of the data set's CSV, with the checksums that the publisher promises.
        expected: what must happen to each clip with a defect, by key; all other clips are good.
        twins: paths of two sound files with the same bytes and different labels.
    """

    folder: Path
    rows: list[dict[str, str]] = field(default_factory=list)
    expected: dict[str, Expected] = field(default_factory=dict)
    twins: tuple[str, ...] = ()

    @property
    def refused(self) -> dict[str, Expected]:
        """Return the part of ``expected`` that some stage must refuse."""
        return {key: clip for key, clip in self.expected.items() if clip.stage}

    @property
    def counts(self) -> dict[str, tuple[int, int, int]]:
        """Return the counts (written, skipped, failed) of each stage of a finished prepare."""
        clips = len(self.rows)
        unfetched, undecoded = (
            sum(clip.stage == stage for clip in self.refused.values())
            for stage in ("fetch", "extract")
        )
        good = clips - unfetched - undecoded
        return {
            "fetch": (2 * clips - unfetched, 0, unfetched),
            "index": (clips - unfetched, unfetched, 0),
            "extract": (good, 0, undecoded),
            "frames": (good, 0, 0),
            "audio": (good, 0, 0),
        }

    def write_manifest(self, folder: Path, **where: object) -> None:
        """Write the manifest and the table of the data set ``fake-crema-d``.

        Args:
            folder: where the two files go.
            where: fields of the manifest that say where the files of the clips are published.
        """
        with (folder / "fake-crema-d.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        facts = {
            "name": "fake-crema-d",
            "title": "CREMA-D, made up",
            "description": "as the real one in layout, codecs and trouble",
            "licence": "none",
            "visual": "video",
            "group": "actor",
            "classes": list(EMOTIONS),
            "table": "fake-crema-d.csv",
            "default_split": "published",
            "splits": {"published": {"column": "published", "val_fraction": 0.1}},
        }
        (folder / "fake-crema-d.yaml").write_text(yaml.safe_dump(facts | where))


def make(folder: Path, clips: int, *, seed: int = 0, defects: bool = True) -> FakeCremaD:
    """Write the files of a data set.

    Args:
        folder: where the files go.
        clips: number of clips.
        seed: another seed gives other clips.
        defects: include one clip with each of ``DEFECTS``, and two clips with the same sound.
    """
    fake = FakeCremaD(folder)
    for name in ("AudioWAV", "VideoFlash"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng([seed, clips])
    stems = _draw_stems(clips, rng)
    assert not defects or clips >= len(DEFECTS) + 10
    shuffled = [stems[i] for i in rng.permutation(clips)]
    chosen = dict(zip(shuffled, DEFECTS if defects else (), strict=False))
    first, second = _choose_twins(shuffled[len(chosen) :]) if defects else ("", "")
    fake.twins = tuple(f"AudioWAV/{stem}.wav" for stem in (first, second) if stem)
    for stem in stems:
        paths = {"wav": f"AudioWAV/{stem}.wav", "flv": f"VideoFlash/{stem}.flv"}
        files = make_clip(stem, seed)
        if stem == second:
            wav = make_clip(first, seed).wav
            files = Files(wav, make_clip(stem, seed, seconds=wav_seconds(wav)).flv)
        promised = Files(files.wav, files.flv)
        if stem in chosen:
            defect = DEFECTS[chosen[stem]]
            defect.apply(files)
            promised = promised if defect.at_source else files
            fake.expected[stem] = Expected(
                chosen[stem], paths[defect.file], defect.stage, defect.reason
            )
        for kind, path in paths.items():
            data: bytes | None = getattr(files, kind)
            if data is not None:
                (folder / path).write_bytes(data)
        fake.rows.append(_row(stem, promised, paths))
    return fake


def _draw_stems(clips: int, rng: np.random.Generator) -> list[str]:
    every = [
        f"{actor}_{sentence}_{emotion}_{level}"
        for actor in ACTORS
        for sentence in SENTENCES
        for emotion in EMOTIONS
        for level in (("LO", "MD", "HI") if sentence == "IEO" and emotion != "NEU" else ("XX",))
    ]
    return sorted(every[i] for i in rng.permutation(len(every))[:clips])


def _choose_twins(stems: list[str]) -> tuple[str, str]:
    """Return two clips with different emotions."""
    return stems[0], next(stem for stem in stems if stem[9:12] != stems[0][9:12])


def _row(stem: str, promised: Files, paths: Mapping[str, str]) -> dict[str, str]:
    actor, _, emotion, _ = stem.split("_")
    row = {"key": stem, "label": str(EMOTIONS.index(emotion)), "group": actor}
    is_test = hashlib.sha256(stem.encode()).digest()[0] < 26
    row["published"] = "test" if is_test else "train"
    for column, kind in (("audio", "wav"), ("visual", "flv")):
        data = getattr(promised, kind)
        row[f"{column}_path"] = paths[kind]
        row[f"{column}_sha256"] = hashlib.sha256(data).hexdigest()
        row[f"{column}_bytes"] = str(len(data))
    return row
