"""What `presets` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from avsnn.cli.screen.console import out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avsnn.pipeline.experiments.presets import Preset


def print_presets(presets: Sequence[Preset]) -> None:
    """Print name and summary of every preset."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("preset", no_wrap=True)
    table.add_column("what the preset is for")
    for preset in presets:
        table.add_row(preset.name, preset.summary)
    out.print(table)
    out.print("settings of a preset: avsnn presets show NAME")


def as_value(preset: Preset) -> dict[str, Any]:
    """Return a preset as a value of JSON."""
    return {"name": preset.name, "summary": preset.summary, "settings": preset.settings}
