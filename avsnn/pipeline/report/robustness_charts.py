"""Charts of robustness: noise, missing inputs and swapped inputs."""

from collections.abc import Sequence

from avsnn.pipeline.evaluation.robustness.record import NoisePoint
from avsnn.pipeline.report.accuracy_charts import compared_lines
from avsnn.pipeline.report.labels import Run
from avsnn.pipeline.report.specs import SHARE_AXIS, SHARE_SCALE, distinct, dots, value
from avsnn.pipeline.report.tables import Chart, Column, Table

READING = "Bands are 95 % intervals, the dashed line is chance."

TARGETS = {
    "visual": "Noise on the picture",
    "audio": "Noise on the sound",
    "both": "Noise on picture and sound",
}

MODALITIES = {"audio": "no sound", "visual": "no picture"}

INTERVAL = (
    Column("top1", "Top-1", "percent"),
    Column("low", "Lower end (95 %)", "percent"),
    Column("high", "Upper end (95 %)", "percent"),
)

CHANCE = Column("chance", "Chance", "percent")


def noise_charts(runs: Sequence[Run]) -> list[Chart]:
    """Return the accuracy over the level of noise, a chart for each noisy input."""
    charts = []
    columns = [Column("run", "Run"), Column("snr", "SNR in dB"), *INTERVAL]
    for target, title in TARGETS.items():
        rows = [
            [run.label, _level(point), point.top1.value, point.top1.low, point.top1.high]
            for run in runs
            if run.results.robustness is not None
            for curve in run.results.robustness.curves
            if curve.target == target
            for point in sorted(curve.points, key=_noisiest_first)
        ]
        if rows:
            name = f"noise-{target}"
            note = f"Gaussian noise at test time{_where(runs, target)}. {READING}"
            charts.append(compared_lines(runs, name, title, note, columns, rows))
    return charts


def missing_chart(runs: Sequence[Run]) -> Chart | None:
    """Return the accuracy without one modality; None if nobody measured the accuracy."""
    columns = [Column("condition", "Input"), Column("run", "Run"), *INTERVAL, CHANCE]
    rows = []
    for run in runs:
        found = run.results.robustness
        if found is None or not found.missing:
            continue
        whole, chance = run.results.evaluation.top1_interval, run.results.evaluation.chance
        rows.append(["picture and sound", run.label, whole.value, whole.low, whole.high, chance])
        for one in found.missing:
            condition = f"{MODALITIES[one.missing]} ({one.filling})"
            share = one.top1
            rows.append([condition, run.label, share.value, share.low, share.high, chance])
    note = "The network lacks one modality; brackets say what the network gets instead."
    return _shares(runs, "missing", "A missing modality", note, columns, rows)


def swapped_chart(runs: Sequence[Run]) -> Chart | None:
    """Return whom each network follows if sound and picture disagree; None if not measured."""
    columns = [Column("condition", "The answer names"), Column("run", "Run"), *INTERVAL, CHANCE]
    rows = []
    for run in runs:
        found = run.results.robustness
        if found is None or found.swapped is None:
            continue
        swapped, chance = found.swapped, run.results.evaluation.chance
        # The two classes of a clip differ, so an answer drawn evenly names neither in the rest.
        for condition, share, level in (
            ("class of the picture", swapped.follows_visual, chance),
            ("class of the sound", swapped.follows_audio, chance),
            ("neither", swapped.follows_neither, max(0.0, 1 - 2 * chance)),
        ):
            rows.append([condition, run.label, share.value, share.low, share.high, level])
    note = "Each clip gets the sound of a clip of another class."
    return _shares(runs, "swapped", "A swapped modality", note, columns, rows)


def other_noise(runs: Sequence[Run]) -> list[str]:
    """Return sentences on noise that is not the noise of the curves."""
    sentences = []
    for run in runs:
        found = run.results.robustness
        if found is None:
            continue
        if found.trained_with_noise is not None:
            sentences.append(
                f"{run.label} was trained with noise on its frames at {found.trained_with_noise:g} "
                "dB SNR, the published habit (data.augment.noise_snr)."
            )
        if found.prepared_with_noise is not None:
            sentences.append(
                f"prepare added noise at {found.prepared_with_noise:g} dB SNR to every waveform of "
                f"{run.label} (audio.noise_snr), beneath the noise of the curves."
            )
    return sentences


def _shares(
    runs: Sequence[Run],
    name: str,
    title: str,
    note: str,
    columns: list[Column],
    rows: list[list[object]],
) -> Chart | None:
    if not rows:
        return None
    spec = dots(
        columns,
        x=value("top1", "share of clips", axis=SHARE_AXIS, scale=SHARE_SCALE),
        y="condition",
        series="run",
        names=[run.label for run in runs],
        interval=True,
        level=CHANCE.key,
        rows=len(distinct(rows, 0)),
    )
    reading = f"{note} Whiskers are 95 % intervals, the grey line of each row is chance."
    return Chart(name, title, reading, Table(columns, rows), spec)


def _where(runs: Sequence[Run], target: str) -> str:
    """Return where noise is added to the sound, if all runs add the noise at the same place."""
    found = {run.results.robustness.audio_noise for run in runs if run.results.robustness}
    place = found.pop() if len(found) == 1 else None
    places = {"waveform": "the waveform", "event frames": "the event frames"}
    return f", on the sound in {places[place]}" if place and target != "visual" else ""


def _level(point: NoisePoint) -> str:
    return "clean" if point.snr is None else f"{point.snr:g}"


def _noisiest_first(point: NoisePoint) -> float:
    return float("inf") if point.snr is None else point.snr
