"""Made-up zips of RAVDESS in the true layout, and a manifest with their checksums."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import yaml

from avsnn.datasets_manifest import load
from tests.own_videos import CLASSES, write_video

# The first actor of train, of val and of test, in the order of their numbers.
ACTORS = {"train": 1, "val": 9, "test": 3}


def zip_name(actor: int) -> str:
    """Return the name of the zip of an actor."""
    return f"Video_Speech_Actor_{actor:02d}.zip"


def published_zips(folder: Path) -> dict[str, bytes]:
    """Return a zip for each of `ACTORS`, with 60 clips of 1 s, with and without sound.

    Args:
        folder: an empty folder for the videos.
    """
    for emotion in range(8):
        for sound in (True, False):
            path = folder / f"{emotion}-{sound}.mp4"
            write_video(path, [*CLASSES][emotion % 3], seconds=1, sound=sound)
    zips = {}
    for actor in ACTORS.values():
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for clip in load("ravdess").clips:
                if clip.group == f"{actor:02d}":
                    directory, name = clip.visual.member.split("/")
                    archive.write(folder / f"{clip.label}-True.mp4", f"{directory}/{name}")
                    silent = f"{directory}/02{name[2:]}"
                    archive.write(folder / f"{clip.label}-False.mp4", silent)
        zips[zip_name(actor)] = packed.getvalue()
    return zips


def write_manifest(
    folder: Path, zips: dict[str, bytes], url: str, *, checksums: bool = True
) -> None:
    """Write ``ravdess.yaml`` and its table with the sizes and MD5 sums of the made-up zips.

    Args:
        folder: where the two files go.
        zips: the zips by their names.
        url: start of the address of every zip.
        checksums: whether the manifest knows size and MD5.
    """
    manifest = load("ravdess")
    facts: dict[str, Any] = manifest.model_dump(mode="json", exclude_defaults=True)
    for archive in facts["archives"]:
        content = zips.get(archive["path"])
        if not checksums:
            del archive["md5"], archive["bytes"]
        elif content is not None:
            archive["md5"] = hashlib.md5(content, usedforsecurity=False).hexdigest()
            archive["bytes"] = len(content)
    facts["sources"] = [{"prefix": "", "url": url}]
    (folder / "ravdess.csv").write_bytes(manifest.table_bytes)
    (folder / "ravdess.yaml").write_text(yaml.safe_dump(facts))
