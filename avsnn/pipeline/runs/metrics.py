"""``metrics.jsonl``: one line for each finished epoch of a run."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from avsnn.errors import RunError
from avsnn.pipeline.engine.atomic_files import set_aside, write_atomically

# Figures that training writes into every line.
FIGURES = ("lr", "loss", "accuracy", "samples_per_second")


class Metrics(NamedTuple):
    """The lines of ``metrics.jsonl`` before the first damaged line.

    Attributes:
        lines: one mapping for each epoch, from the first epoch on.
        damage: what is wrong with the next line, as a phrase; empty if nothing is wrong.
    """

    lines: list[dict[str, Any]]
    damage: str


def metrics_path(folder: Path) -> Path:
    """Return the path of ``metrics.jsonl`` in a run folder."""
    return folder / "metrics.jsonl"


def read_metrics(folder: Path, selection: str = "last") -> list[dict[str, Any]]:
    """Return the lines of ``metrics.jsonl`` before the first line that is damaged."""
    return inspect_metrics(folder, selection).lines


def inspect_metrics(folder: Path, selection: str = "last") -> Metrics:
    """Read ``metrics.jsonl`` up to the first damaged line.

    Args:
        folder: the run folder.
        selection: the part that chooses the epoch. Every line must hold the accuracy and the loss
            of this part; ``last`` asks for neither.

    Raises:
        RunError: the machine cannot read the file, so nobody knows whether the file is damaged.
    """
    path = metrics_path(folder)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Metrics([], "")
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from None
    figures = [*FIGURES]
    if selection != "last":
        figures += [f"{selection}_loss", f"{selection}_accuracy"]
    lines: list[dict[str, Any]] = []
    for text in content.splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            return Metrics(lines, f"{path} is damaged in line {len(lines) + 1}")
        if not _is_line(line, epoch=len(lines) + 1, figures=figures):
            reason = f"{path} is damaged: line {len(lines) + 1} holds no figures of that epoch"
            return Metrics(lines, reason)
        lines.append(line)
    return Metrics(lines, "" if lines else f"{path} is damaged: it is empty")


def write_metrics(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Write ``metrics.jsonl``, whole or not at all."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    write_atomically(metrics_path(folder), text.encode())


def repair_metrics(folder: Path, selection: str) -> Metrics:
    """Read ``metrics.jsonl``, and write the file again without what follows a damaged line.

    The damaged file stays under the name ``metrics.jsonl.damaged``.
    """
    metrics = inspect_metrics(folder, selection)
    if not metrics.damage:
        return metrics
    kept = set_aside(metrics_path(folder), "damaged")
    if metrics.lines:
        write_metrics(folder, metrics.lines)
    return metrics._replace(damage=f"{metrics.damage} (kept as {kept.name})")


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


def is_best_epoch(epoch: int, metrics: list[dict[str, Any]], selection: str) -> bool:
    """Return whether an epoch is the chosen epoch of the finished epochs; true without any line."""
    return not metrics or best_epoch(metrics, selection)["epoch"] == epoch


def _is_line(line: Any, *, epoch: int, figures: list[str]) -> bool:
    """Return whether a value is the line of an epoch and holds all figures."""
    if not isinstance(line, dict) or line.get("epoch") != epoch:
        return False
    rates = line.get("spike_rates")
    if not isinstance(rates, dict) or not rates:
        return False
    numbers = [*(line.get(name) for name in figures), *rates.values()]
    return all(type(number) in (int, float) for number in numbers)
