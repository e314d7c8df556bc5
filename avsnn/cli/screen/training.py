"""What `train` prints when a training has ended."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import yaml
from rich.table import Table

from avsnn.cli.screen.console import is_follower, out

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from avsnn.pipeline.runs.config import RunConfig
    from avsnn.pipeline.runs.train_settings import TrainSettings
    from avsnn.pipeline.training.train import TrainingResult

CHOSEN_ON_TEST = "; chosen on the test part itself, as in the published results"


def print_settings(settings: TrainSettings) -> None:
    """Print all settings of a training as YAML."""
    # Lines of YAML must not be broken at the width of the terminal.
    print(
        yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        end="",
    )


def print_training(
    trained: TrainingResult, config: RunConfig, *, plugins: Sequence[Path] = ()
) -> None:
    """Print run folder, epochs, last epoch, firing rates and best epoch of a training."""
    if is_follower():
        return
    if not trained.epochs:
        out.print(f"{trained.folder}: nothing to do; this run was finished before.")
    last = trained.metrics[-1]
    rates = last["spike_rates"].values()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in {
        "run": f"{trained.folder}",
        "epochs": f"{len(trained.metrics)}, {trained.epochs} of them now in "
        f"{trained.seconds:.0f} s",
        "last epoch": f"loss {last['loss']:.4f}, accuracy {last['accuracy']:.2%}, "
        f"{last['samples_per_second']:.0f} samples/s",
        "firing": f"{sum(rates) / len(rates):.1%} of neurons per time step, mean of {len(rates)} "
        f"layers; {sum(not rate for rate in rates)} layers silent",
        "best": f"epoch {trained.best['epoch']} ({_reason_for_best_epoch(trained, config)})",
    }.items():
        table.add_row(name, text)
    out.print(table)
    of_files = any(plugin.is_file for plugin in config.plugins.values())
    words = [word for file in plugins if of_files for word in ("--plugin", str(file))]
    out.print(" ".join(["next: avsnn evaluate", str(trained.folder), *map(shlex.quote, words)]))


def _reason_for_best_epoch(trained: TrainingResult, config: RunConfig) -> str:
    part = config.settings.selection
    if part == "last":
        return "the last epoch, because selection=last"
    accuracy = f"{part} accuracy {trained.best[f'{part}_accuracy']:.2%}"
    return accuracy + (CHOSEN_ON_TEST if part == "test" else "")
