"""What `evaluate` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from avsnn.cli.screen.console import out
from avsnn.pipeline.evaluation.results import unique_names

if TYPE_CHECKING:
    from pathlib import Path

    from avsnn.pipeline.evaluation.comparison import Comparison
    from avsnn.pipeline.evaluation.insight.record import Insight
    from avsnn.pipeline.evaluation.intervals import Share
    from avsnn.pipeline.evaluation.measures import Evaluation
    from avsnn.pipeline.evaluation.results import RunResults
    from avsnn.pipeline.evaluation.robustness.record import Robustness


def print_results(results: list[RunResults], comparison: Comparison | None) -> None:
    """Print the measures of one run or of several runs.

    Args:
        results: the measures of each run.
        comparison: what several runs say together; None for one run.
    """
    names = unique_names(results)
    if comparison is None:
        _print_classes(results[0].evaluation)
        _print_headline(results[0].evaluation)
    else:
        _print_runs(names, results)
        _print_comparison(comparison)
    for name, result in zip(names, results, strict=True):
        if result.robustness is not None:
            _print_robustness(name, result.robustness)
    for name, result in zip(names, results, strict=True):
        if result.insight is not None:
            _print_insight(name, result.insight)
    for name, result in zip(names, results, strict=True):
        who = f"{name}: " if comparison else ""
        for caveat in result.evaluation.caveats:
            out.print(f"note: {who}{caveat}")
    if all(result.measured_before for result in results):
        out.print("The same checkpoint was measured before; the data were not read again.")


def print_page(page: Path | None, results: list[RunResults]) -> None:
    """Print where the report is; None if nobody may write the report to its usual place."""
    folder = "the run folder" if len(results) == 1 else "the current folder"
    out.print(f"report: {page or f'none, because {folder} is read-only'}")


def as_value(results: list[RunResults], comparison: Comparison | None) -> dict[str, Any]:
    """Return the measures of one run, or of several runs with their comparison, for JSON."""
    named = zip(unique_names(results), results, strict=True)
    runs = [_run_as_value(result) | {"run": name} for name, result in named]
    if comparison is None:
        return runs[0]
    return {"runs": runs, "comparison": comparison.model_dump(mode="json")}


def _run_as_value(result: RunResults) -> dict[str, Any]:
    value = result.evaluation.model_dump(mode="json")
    if result.robustness is not None:
        value["robustness"] = result.robustness.model_dump(mode="json")
    if result.insight is not None:
        value["insight"] = result.insight.model_dump(mode="json")
    return value


def _percent(share: Share) -> str:
    return f"{share.value:.2%} ({_interval(share)})"


def _interval(share: Share) -> str:
    return f"{100 * share.low:.1f} to {share.high:.1%}"


def _table(title: str, first: str, *others: str) -> Table:
    """Return a table whose first column holds names and whose other columns hold figures."""
    table = Table(title=title, title_justify="left")
    # Names of runs often differ in their last letters only.
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _print_classes(result: Evaluation) -> None:
    title = f"{result.run}: {result.part} part of {result.dataset}, split {result.split}"
    table = _table(title, "class", "precision", "recall", "F1", "clips")
    for row in result.classes:
        figures = (row.precision, row.recall, row.f1)
        table.add_row(row.name, *(f"{figure:.3f}" for figure in figures), f"{row.clips:,}")
    out.print(table)


def _print_headline(result: Evaluation) -> None:
    top5 = "" if result.top5 is None else f", top-5 {result.top5:.2%}"
    out.print(
        f"top-1 {result.top1:.2%}{top5}, loss {result.loss:.4f}, {result.clips:,} clips, "
        f"epoch {result.epoch or 'unknown'} (chosen on {result.selection})"
    )
    out.print(
        f"95 % interval of top-1: {_interval(result.top1_interval)} (from "
        f"{result.resampled_units:,} {result.resampled}); chance {result.chance:.2%}; always "
        f"{result.majority.name}: {result.majority.share:.2%}; calibration error "
        f"{result.calibration.ece:.4f}"
    )


def _print_runs(names: list[str], results: list[RunResults]) -> None:
    first = results[0].evaluation
    table = _table(
        f"{first.part} part", "run", "top-1 (95 % interval)", "top-5", "loss", "ECE", "clips"
    )
    for name, result in zip(names, results, strict=True):
        measured = result.evaluation
        table.add_row(
            name,
            _percent(measured.top1_interval),
            "" if measured.top5 is None else f"{measured.top5:.2%}",
            f"{measured.loss:.4f}",
            f"{measured.calibration.ece:.4f}",
            f"{measured.clips:,}",
        )
    out.print(table)
    for dataset in sorted({(r.evaluation.dataset, r.evaluation.chance) for r in results}):
        out.print(f"chance on {dataset[0]}: {dataset[1]:.2%}")


def _print_comparison(comparison: Comparison) -> None:
    if comparison.pairs:
        table = _table(
            "McNemar's exact test on the same clips (p adjusted by Holm)",
            "runs",
            "clips",
            "only the first right",
            "only the second right",
            "p",
            "adjusted p",
        )
        for pair in comparison.pairs:
            table.add_row(
                f"{pair.first}, {pair.second}",
                f"{pair.clips:,}",
                f"{pair.only_first:,}",
                f"{pair.only_second:,}",
                _p_value(pair.p),
                _p_value(pair.adjusted_p),
            )
        out.print(table)
    for seeds in comparison.seeds:
        out.print(
            f"{seeds.method}, {len(seeds.runs)} seeds: top-1 {seeds.mean:.2%} ± "
            f"{100 * seeds.deviation:.2f} points (mean and standard deviation of "
            f"{', '.join(seeds.runs)})"
        )
    for note in comparison.notes:
        out.print(f"note: {note}")


def _print_robustness(name: str, found: Robustness) -> None:
    if found.curves:
        levels = [point.snr for point in found.curves[0].points]
        headings = ["clean" if snr is None else f"{snr:g} dB" for snr in levels]
        table = _table(f"{name}: top-1 with Gaussian noise at test time", "noise on", *headings)
        for curve in found.curves:
            table.add_row(curve.target, *(f"{point.top1.value:.1%}" for point in curve.points))
        out.print(table)
    for one in found.missing:
        out.print(f"{name}: without {one.missing} ({one.filling}): top-1 {_percent(one.top1)}")
    if (swapped := found.swapped) is not None:
        out.print(
            f"{name}: with the sound of another class ({swapped.clips:,} clips), the answer "
            f"follows the picture in {swapped.follows_visual.value:.1%}, the sound in "
            f"{swapped.follows_audio.value:.1%}, neither in {swapped.follows_neither.value:.1%}"
        )


def _print_insight(name: str, found: Insight) -> None:
    energy = found.energy
    rates = [row.rate for row in found.rates]
    out.print(
        f"{name}: {energy.energy_pj / 1e6:.3f} uJ for one clip ({energy.macs / 1e6:.2f} M MACs, "
        f"{energy.acs / 1e6:.2f} M ACs), {energy.ann_energy_pj / 1e6:.3f} uJ as an ANN; mean "
        f"firing rate {sum(rates) / len(rates):.1%}, {rates.count(0)} of {len(rates)} layers silent"
    )
    steps = ", ".join(f"{row.steps}: {row.top1.value:.1%}" for row in found.steps)
    out.print(f"{name}: top-1 after t time steps: {steps}")
    if found.contribution is not None:
        gain = found.contribution
        out.print(
            f"{name}: of the accuracy, {100 * gain.audio:.1f} points come from audio and "
            f"{100 * gain.visual:.1f} from vision, beyond {gain.neither:.1%} without both"
        )
    large = [row.layer for row in found.fans if not row.fits]
    out.print(
        f"{name}: {len(found.fans) - len(large)} of {len(found.fans)} layers have fan-in and "
        f"fan-out within {found.fan_limit:,}"
        + (f"; beyond: {', '.join(large[:5])}{', ...' if len(large) > 5 else ''}" if large else "")
    )


def _p_value(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"
