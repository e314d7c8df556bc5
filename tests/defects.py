"""Defects of clips: how each defect damages the files, and which stage must refuse the clip."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.fake_clips import FPS, SOUND, Files, draw_tags, encode_flv, encode_wav, wav_seconds

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 327656\n"


@dataclass(frozen=True)
class Defect:
    """A defect of a clip.

    Attributes:
        apply: damages the files of the clip.
        file: the damaged file, ``wav`` or ``flv``.
        stage: the stage that must refuse the clip; None where the clip is usable in spite of the
            defect.
        reason: words of the reason that the stage must record, as a regular expression.
        at_source: True if only the copy in the source folder is damaged, so that the table holds
            the checksums of the undamaged files; False if the publisher published the damaged
            files.
    """

    apply: Callable[[Files], None]
    file: str
    stage: str | None
    reason: str = ""
    at_source: bool = False


def _set_files(**values: bytes | None) -> Callable[[Files], None]:
    def apply(files: Files) -> None:
        for name, value in values.items():
            setattr(files, name, value)

    return apply


def _cut(kind: str, share: float) -> Callable[[Files], None]:
    def apply(files: Files) -> None:
        data = getattr(files, kind)
        setattr(files, kind, data[: int(share * len(data))])

    return apply


def _flip_a_bit(files: Files) -> None:
    middle = len(files.flv) // 2
    files.flv = files.flv[:middle] + bytes([files.flv[middle] ^ 1]) + files.flv[middle + 1 :]


def _replace_video(
    frames: int, *, header: bool = True, share: float = 1.0
) -> Callable[[Files], None]:
    """Replace the video by a video of ``frames`` frames, cut to a share of its bytes.

    ``header`` says whether the header of the video gives the duration.
    """

    def apply(files: Files) -> None:
        tags = draw_tags(np.random.default_rng(frames), 0, frames)
        data = encode_flv(tags, float(frames / FPS) if header else None)
        files.flv = data[: int(share * len(data))]

    return apply


def _drop_duration(files: Files) -> None:
    """Replace the video by a whole video, as long as the sound, whose header has no duration."""
    _replace_video(round(wav_seconds(files.wav) * FPS), header=False)(files)


def _drop_pictures(files: Files) -> None:
    sounds = [tag for tag in draw_tags(np.random.default_rng(0), 0, 75) if tag[0] == SOUND]
    files.flv = encode_flv(sounds, 2.5)


def _drop_all_tags(files: Files) -> None:
    files.flv = encode_flv([], 2.5)


def _replace_sound(step: int) -> Callable[[Files], None]:
    """Replace the sound by samples that alternate between 0 and ``step``."""

    def apply(files: Files) -> None:
        count = (len(files.wav) - 44) // 2
        files.wav = encode_wav((np.arange(count) % 2 * step).astype(np.int16))

    return apply


# The defects by name; the first word of a name is the damaged file.
DEFECTS: dict[str, Defect] = {
    # The published files are damaged, and the table has their checksums: extract must notice.
    "flv cut in half": Defect(_cut("flv", 0.5), "flv", "extract", r"is truncated: \d+ of the \d+"),
    "flv cut at 90 %": Defect(_cut("flv", 0.9), "flv", "extract", r"is truncated: \d+ of the \d+"),
    "flv empty": Defect(_set_files(flv=b""), "flv", "extract", "is empty"),
    "flv of one frame": Defect(_replace_video(1), "flv", "extract", "holds a single frame"),
    "flv of text": Defect(
        _set_files(flv=b"<html>404</html>\n" * 99), "flv", "extract", "not a video"
    ),
    "flv without picture": Defect(_drop_pictures, "flv", "extract", "holds no video stream"),
    "flv without frames": Defect(_drop_all_tags, "flv", "extract", "holds no frame"),
    "flv too long": Defect(
        _replace_video(450), "flv", "extract", r"lasts 15.0 s where its sound lasts"
    ),
    "flv too short": Defect(_replace_video(9), "flv", "extract", r"is truncated: 0.3 s of picture"),
    "flv cut and without duration": Defect(
        _replace_video(75, header=False, share=0.2),
        "flv",
        "extract",
        "its container gives no duration",
    ),
    "flv whole but without duration": Defect(_drop_duration, "flv", None),
    "wav silent": Defect(_replace_sound(0), "wav", "extract", "is digital silence"),
    "wav nearly silent": Defect(
        _replace_sound(1), "wav", "extract", "is silent: its peak is -90 dBFS"
    ),
    "wav cut": Defect(_cut("wav", 0.7), "wav", "extract", r"is truncated: \d+ of the \d+ bytes"),
    "wav without samples": Defect(
        _set_files(wav=encode_wav(np.zeros(0, np.int16))), "wav", "extract", "holds no audio sample"
    ),
    # Only the files in the source folder are damaged: fetch must notice.
    "flv pointer": Defect(
        _set_files(flv=POINTER % 1), "flv", "fetch", "LFS pointer", at_source=True
    ),
    "wav pointer": Defect(
        _set_files(wav=POINTER % 2), "wav", "fetch", "LFS pointer", at_source=True
    ),
    "flv missing": Defect(_set_files(flv=None), "flv", "fetch", "is missing", at_source=True),
    "flv altered": Defect(
        _flip_a_bit, "flv", "fetch", "does not match the SHA-256", at_source=True
    ),
    "wav shorter": Defect(_cut("wav", 0.9), "wav", "fetch", "where the manifest", at_source=True),
}
