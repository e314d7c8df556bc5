"""8. Pictures and one HTML page of a run, from the numbers that train and evaluate recorded."""

from base64 import b64encode
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsnn.pipeline.evaluate import Evaluation
from avsnn.pipeline.files import write_if_changed
from avsnn.pipeline.run import RunConfig, load_config, read_metrics
from avsnn.pipeline.settings import flatten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PART_COLOURS = {"train": "#4477aa", "val": "#ee6677", "test": "#228833"}

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


def write_report(folder: Path) -> Path:
    """Writes ``report/index.html`` and its pictures; returns the page.

    Pictures are also inside the page, so that it can be sent around as one file.
    """
    config, metrics = load_config(folder), read_metrics(folder)
    report = folder / "report"
    found = [report / f"{part}.json" for part in ("test", "val", "train")]
    evaluations = [
        Evaluation.model_validate_json(path.read_bytes()) for path in found if path.exists()
    ]
    sections = [_header(config)]
    for result in evaluations:
        picture = _png(draw_confusion(result))
        write_if_changed(report / f"confusion-{result.part}.png", picture)
        sections.append(_evaluation_section(result, picture))
    for name, figure in (("curves", draw_curves(metrics)), ("spikes", draw_spike_rates(metrics))):
        picture = _png(figure)
        write_if_changed(report / f"{name}.png", picture)
        sections.append(f"<h2>{CAPTIONS[name]}</h2>{_image(picture, CAPTIONS[name])}")
    sections.append(_settings_section(config))
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        f"<title>{escape(folder.name)}</title><style>{STYLE}</style>{''.join(sections)}</html>\n"
    )
    write_if_changed(report / "index.html", page.encode())
    return report / "index.html"


CAPTIONS = {
    "curves": "Loss and accuracy over the epochs",
    "spikes": "Firing rate of every spiking layer, last step of each epoch",
}


def draw_confusion(result: Evaluation) -> "Figure":
    """True class by row, predicted class by column: counts, shaded by share of the row."""
    figure, axes = _figure(width=1.8 + 0.6 * len(result.classes))
    names = [row.name for row in result.classes]
    shares = [[count / max(1, sum(row)) for count in row] for row in result.confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for y, row in enumerate(result.confusion):
        for x, count in enumerate(row):
            colour = "white" if shares[y][x] > 0.5 else "black"
            axes.text(x, y, str(count or ""), ha="center", va="center", color=colour, fontsize=9)
    slanted = max(map(len, names)) > 3
    axes.set_xticks(
        range(len(names)), names, rotation=45 if slanted else 0, ha="right" if slanted else "center"
    )
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{result.part}: top-1 {result.top1:.2%} of {result.clips:,} clips")
    return figure


def draw_curves(metrics: list[dict[str, Any]]) -> "Figure":
    """Loss beside accuracy, of training and of the part that chose the checkpoint."""
    figure, (left, right) = _figure(width=9.5, height=3.6, columns=2)
    epochs = [line["epoch"] for line in metrics]
    for axes, name in ((left, "loss"), (right, "accuracy")):
        for part in PART_COLOURS:
            key = name if part == "train" else f"{part}_{name}"
            if metrics and key in metrics[0]:
                values = [line[key] for line in metrics]
                axes.plot(epochs, values, label=part, color=PART_COLOURS[part], marker=".")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper right" if axes is left else "lower right")
    left.set_ylabel("loss (train: with smoothing and alignment)")
    right.set_ylabel("accuracy")
    right.set_ylim(0, 1.02)
    return figure


def draw_spike_rates(metrics: list[dict[str, Any]]) -> "Figure":
    """A row per layer, a column per epoch; layers that never fire are named so."""
    layers = list(metrics[0]["spike_rates"]) if metrics else []
    figure, axes = _figure(width=9.5, height=1.2 + 0.24 * len(layers))
    rates = [[line["spike_rates"][layer] for line in metrics] for layer in layers]
    labels = [
        layer if any(row) else f"{layer} (silent)" for layer, row in zip(layers, rates, strict=True)
    ]
    extent = (0.5, len(metrics) + 0.5, len(layers) - 0.5, -0.5)
    image = axes.imshow(rates, aspect="auto", cmap="viridis", vmin=0, extent=extent)
    axes.set_yticks(range(len(layers)), labels, fontsize=8)
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.colorbar(image, ax=axes, label="spikes per neuron and step")
    return figure


def _figure(*, width: float, height: float | None = None, columns: int = 1) -> tuple["Figure", Any]:
    # The object interface: pyplot would pick a window system and keep global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height or width), layout="constrained")
    return figure, figure.subplots(1, columns)


def _png(figure: "Figure") -> bytes:
    buffer = BytesIO()
    # No software version in the file: same numbers, same bytes.
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def _image(png: bytes, caption: str, *, kind: str = "wide") -> str:
    data = b64encode(png).decode()
    return f"<img class={kind} alt='{escape(caption)}' src='data:image/png;base64,{data}'>"


def _header(config: RunConfig) -> str:
    model = config.settings.model
    return (
        f"<h1>{escape(config.manifest.title)}: {escape(model.method)}</h1>"
        f"<p>{config.data.clips:,} clips in all parts, split {escape(config.split)}, "
        f"C = {model.channels}, T = {model.steps}, seed {config.settings.seed}</p>"
    )


def _evaluation_section(result: Evaluation, picture: bytes) -> str:
    top5 = "" if result.top5 is None else f", top-5 {result.top5:.2%}"
    peeked = (
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
        f"<p>top-1 of {result.clips:,} clips{top5}, loss {result.loss:.4f}, epoch {result.epoch}, "
        f"chosen on {escape(result.selection)}.</p>{peeked}"
        f"<table><tr><th>class{headings}{rows}</table>"
        + _image(picture, "confusion matrix", kind="square")
    )


def _settings_section(config: RunConfig) -> str:
    rows = flatten(config.settings) | config.made_with | {"data": config.data.fingerprint}
    body = "".join(f"<tr><td>{escape(k)}<td>{escape(str(v))}" for k, v in rows.items())
    title = "Every setting, and what it ran on"
    return f"<details><summary>{title}</summary><table>{body}</table></details>"
