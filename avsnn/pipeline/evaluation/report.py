"""8. Report: pictures and an HTML page, from the numbers that train and evaluate recorded."""

from base64 import b64encode
from html import escape
from pathlib import Path

from avsnn.datasets_manifest.clips import Part
from avsnn.pipeline.engine.atomic_files import (
    read_only_allowed,
    remove_partial_files_of_dead_writers,
    write_if_changed,
)
from avsnn.pipeline.evaluation.evaluate import evaluation_path
from avsnn.pipeline.evaluation.figures import draw_confusion, draw_curves, draw_spike_rates
from avsnn.pipeline.evaluation.measures import Evaluation
from avsnn.pipeline.evaluation.records import read_any_record
from avsnn.pipeline.pictures import png
from avsnn.pipeline.runs.config import RunConfig, load_config
from avsnn.pipeline.runs.metrics import inspect_metrics, is_best_epoch
from avsnn.pipeline.settings_overrides import flatten

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } th, td { padding: .15rem .9rem .15rem 0; text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; }
img.square { max-width: 36rem; display: block; margin-top: 1rem; }
 .headline { font-size: 2.2rem; font-weight: 600; }
.note { color: #a33; } details { margin-top: 1rem; }
"""

CAPTIONS = {
    "curves": "Loss and accuracy over the epochs",
    "spikes": "Firing rate of every spiking layer, over each epoch",
}

# The parts in the order in which the page shows them.
REPORTED_PARTS: tuple[Part, ...] = ("test", "val", "train")


def write_report(folder: Path) -> Path | None:
    """Write ``report/index.html`` and the pictures, and return the path of the page.

    The page also contains the pictures, so that a person can send the page as a single file.

    Args:
        folder: the run folder.

    Returns:
        None if the report has changed, and nobody may write into the run folder.
    """
    with read_only_allowed():
        return _write_report(folder)
    return None


def _write_report(folder: Path) -> Path:
    config = load_config(folder)
    metrics, damage = inspect_metrics(folder, config.settings.selection)
    report = folder / "report"
    remove_partial_files_of_dead_writers(report)
    sections = [_header(config)]
    for part in REPORTED_PARTS:
        path = evaluation_path(folder, part)
        result = read_any_record(Evaluation, path)
        if result is None:
            if path.exists():
                damaged = f"{path} is damaged; run 'avsnn evaluate {folder} --part {part}'."
                sections.append(_note(damaged))
            continue
        is_present = is_best_epoch(result.epoch, metrics, config.settings.selection)
        if not damage and not is_present:
            stale = f"The best epoch is another one than epoch {result.epoch} by now; run "
            sections.append(_note(f"{stale}'avsnn evaluate {folder} --part {part}'."))
        picture = png(draw_confusion(result))
        write_if_changed(report / f"confusion-{result.part}.png", picture)
        sections.append(_evaluation_section(result, picture))
    if damage:
        sections.append(_note(f"{damage}; the pictures show the {len(metrics)} epochs before."))
    for name, draw in (("curves", draw_curves), ("spikes", draw_spike_rates)):
        if not metrics:
            continue
        picture = png(draw(metrics))
        write_if_changed(report / f"{name}.png", picture)
        sections.append(f"<h2>{CAPTIONS[name]}</h2>{_image(picture, CAPTIONS[name])}")
    sections.append(_settings_section(config))
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        f"<title>{escape(folder.name)}</title><style>{STYLE}</style>{''.join(sections)}</html>\n"
    )
    write_if_changed(report / "index.html", page.encode(errors="backslashreplace"))
    return report / "index.html"


def _note(sentence: str) -> str:
    return f"<p class=note>{escape(sentence)}</p>"


def _header(config: RunConfig) -> str:
    model = config.settings.model
    return (
        f"<h1>{escape(config.manifest.title)}: {escape(model.method)}</h1>"
        f"<p>{config.data.clips:,} clips in all parts, split {escape(config.split)}, "
        f"C = {model.channels}, T = {model.steps}, seed {config.settings.seed}</p>"
    )


def _evaluation_section(result: Evaluation, picture: bytes) -> str:
    top5 = "" if result.top5 is None else f", top-5 {result.top5:.2%}"
    warning = (
        "<p class=note>The epoch was chosen on the test part itself, as in the published runs.</p>"
        if result.selection == "test"
        else ""
    )
    rows = "".join(
        f"<tr><td>{escape(row.name)}"
        + "".join(f"<td class=number>{x:.3f}" for x in (row.precision, row.recall, row.f1))
        + f"<td class=number>{row.clips:,}"
        for row in result.classes
    )
    headings = "".join(
        f"<th class=number>{name}" for name in ("precision", "recall", "F1", "clips")
    )
    return (
        f"<h2>On the {result.part} part</h2>"
        f"<p class=headline>{result.top1:.2%}</p>"
        f"<p>top-1 of {result.clips:,} clips{top5}, loss {result.loss:.4f}, "
        f"epoch {result.epoch or 'unknown'}, "
        f"chosen on {escape(result.selection)}.</p>{warning}"
        f"<table><tr><th>class{headings}{rows}</table>"
        + _image(picture, "confusion matrix", kind="square")
    )


def _settings_section(config: RunConfig) -> str:
    rows = flatten(config.settings) | config.made_with | {"data": config.data.fingerprint}
    body = "".join(f"<tr><td>{escape(k)}<td>{escape(str(v))}" for k, v in rows.items())
    title = "Every setting, and what it ran on"
    return f"<details><summary>{title}</summary><table>{body}</table></details>"


def _image(picture: bytes, caption: str, *, kind: str = "wide") -> str:
    data = b64encode(picture).decode()
    return f"<img class={kind} alt='{escape(caption)}' src='data:image/png;base64,{data}'>"
