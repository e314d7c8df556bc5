"""``metrics.jsonl``: one line for each finished epoch of a run."""

import json
from pathlib import Path
from typing import Any


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of ``metrics.jsonl``, up to the first line that a kill cut short."""
    path = folder / "metrics.jsonl"
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def best_epoch(metrics: list[dict[str, Any]], selection: str) -> dict[str, Any]:
    """Return the line of the chosen epoch.

    Args:
        metrics: the lines of all finished epochs.
        selection: the part whose accuracy chooses; the lower loss decides between equal
            accuracies, and the earlier epoch between equal losses. ``last`` takes the last epoch.
    """
    if selection == "last":
        return metrics[-1]
    return max(
        metrics, key=lambda line: (line[f"{selection}_accuracy"], -line[f"{selection}_loss"])
    )
