"""What `convert-checkpoint` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avsnn.cli.screen.console import out

if TYPE_CHECKING:
    from pathlib import Path

    from avsnn.models.zoo import AuthorsState


def print_conversion(found: AuthorsState, target: Path) -> None:
    """Print the network that a checkpoint of the authors' code held, and the keys left out."""
    model = found.settings
    out.print(
        f"{target}: {model.method}, C = {model.channels}, {found.classes} classes, "
        f"T = {model.steps}, {len(found.state)} tensors"
    )
    for name, keys in (("never called, dropped", found.dropped), ("unknown", found.unknown)):
        out.print(f"{len(keys)} keys {name}{': ' if keys else ''}{', '.join(keys)}")
