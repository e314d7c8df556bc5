"""What `convert-checkpoint` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avsnn.cli.screen.console import out

if TYPE_CHECKING:
    from pathlib import Path

    from avsnn.models.zoo import AuthorsState
    from avsnn.pipeline.training.convert_run import ConvertedRun


def print_conversion(found: AuthorsState, target: Path) -> None:
    """Print the network that a checkpoint of the authors' code held, and the keys left out."""
    model = found.settings
    out.print(
        f"{target}: {model.method}, C = {model.channels}, {found.classes} classes, "
        f"T = {model.steps}, {len(found.state)} tensors"
    )
    for name, keys in (("never called, dropped", found.dropped), ("unknown", found.unknown)):
        out.print(f"{len(keys)} keys {name}{': ' if keys else ''}{', '.join(keys)}")


def print_converted_run(converted: ConvertedRun, folder: Path) -> None:
    """Print the network of a converted run, and what to do next."""
    print_conversion(converted.imported, folder)
    if not converted.written:
        out.print(f"{folder}: nothing to do; this checkpoint was converted before.")
    out.print(f"next: avsnn evaluate {folder}")
