"""Finds clips in recordings of event cameras and cochleas."""

from pathlib import Path

from avsnn.errors import UserError
from avsnn.pipeline.new_dataset.draft import Arrangement
from avsnn.pipeline.new_dataset.found_files import FoundFiles
from avsnn.pipeline.new_dataset.oddities import Oddities


def arrange_events(folder: Path, found: FoundFiles, odd: Oddities) -> Arrangement:
    raise UserError("not yet")
