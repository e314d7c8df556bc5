"""A small data set of a user, the edits that a user makes, and what a prepare left of it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import yaml

from avsnn.datasets_manifest import Manifest, load
from avsnn.datasets_manifest.clips import COLUMNS, PART_OF_CODE
from avsnn.pipeline.formats.clip_index import open_index
from avsnn.pipeline.prepare.splits import assign_parts, select
from tests.conftest import hashes


class OwnDataset:
    """A small data set of a user, whose YAML and table can be changed.

    Attributes:
        facts: the content of the YAML.
        rows: the rows of the table.
        reserve: rows of other clips, which are not in the table.
        source: the folder of the files, if the files come from a folder.
    """

    source: Path | None = None

    def __init__(self, folder: Path) -> None:
        self.yaml, self.table = folder / "own.yaml", folder / "own.csv"
        manifest = load("demo")
        facts = manifest.model_dump(mode="json", exclude_defaults=True)
        facts |= {"name": "own", "table": "own.csv", "group": "speaker"}
        facts["splits"]["speaker"] = {"val_groups": ["s1"], "test_groups": ["s2"]}
        self.facts = facts
        rows = [
            dict(
                zip(
                    (*COLUMNS, "split"),
                    (
                        clip.key,
                        str(clip.label),
                        f"s{number % 4}",
                        *(clip.audio.path, "", "", clip.visual.path, "", ""),
                        clip.columns["split"],
                    ),
                    strict=True,
                )
            )
            for number, clip in enumerate(select(manifest, 36))
        ]
        # The reserve holds rows that a later edit may append.
        self.rows, self.reserve = rows[:30], rows[30:]
        self.write()

    def write(self) -> None:
        self.yaml.write_text(yaml.safe_dump(self.facts))
        with self.table.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*COLUMNS, "split"])
            writer.writeheader()
            writer.writerows(self.rows)


def relabel(own: OwnDataset) -> None:
    own.rows[0]["label"] = str((int(own.rows[0]["label"]) + 1) % 6)


def regroup(own: OwnDataset) -> None:
    own.rows[0]["group"] = "s2" if own.rows[0]["group"] != "s2" else "s1"


def repart(own: OwnDataset) -> None:
    row = max(own.rows, key=lambda row: row["split"])
    row["split"] = "test"


def other_test_groups(own: OwnDataset) -> None:
    own.facts["splits"]["speaker"] = {"val_groups": ["s2"], "test_groups": ["s1"]}


def rename_class(own: OwnDataset) -> None:
    own.facts["classes"] = ["circle-rising", *own.facts["classes"][1:]]


def other_default_split(own: OwnDataset) -> None:
    own.facts["default_split"] = "speaker"


def part_of_keys(manifest: Manifest, split: str) -> dict[str, str]:
    """Return the part of every clip, by its key."""
    codes = assign_parts(manifest, split)
    return {
        clip.key: PART_OF_CODE[code] for clip, code in zip(manifest.clips, codes, strict=True)
    }


Edit = Callable[[OwnDataset], None]
EDITS: list[Edit] = [relabel, regroup, repart, other_test_groups, rename_class, other_default_split]


def prepared_index(folder: Path) -> dict[str, tuple[int, str, str, str]]:
    prepared = json.loads((folder / "prepared.json").read_text())
    rows = open_index(folder / prepared["index"]).rows()
    return {row.key: (row.label, row.label_name, row.group, row.splits["speaker"]) for row in rows}


def current_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the files that ``prepared.json`` names, and of ``prepared.json``."""
    prepared = json.loads((folder / "prepared.json").read_text())
    current = tuple(prepared[name] for name in ("shards", "frames", "audio", "index"))
    return {
        name: digest
        for name, digest in hashes(folder).items()
        if name.startswith(current) or name == "prepared.json"
    }
