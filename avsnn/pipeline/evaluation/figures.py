"""The pictures of a report, drawn with matplotlib."""

from math import ceil, nan
from typing import TYPE_CHECKING, Any

from avsnn.pipeline.evaluation.measures import Evaluation
from avsnn.pipeline.pictures import new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A picture with a number in every cell grows with the square of the number of classes.
MOST_NUMBERED = 30

LONGEST_NAME = 24

PART_COLOURS = {"train": "#4477aa", "val": "#ee6677", "test": "#228833"}


def draw_confusion(result: Evaluation) -> "Figure":
    """Draw the confusion matrix: true class by row, predicted class by column.

    A cell shows a number of clips and is shaded by its share of the row. More than `MOST_NUMBERED`
    classes have no numbers, and names at some rows and columns only.
    """
    count = len(result.classes)
    side = 1.8 + 0.6 * min(count, MOST_NUMBERED)
    figure, axes = new_figure(width=side, height=side)
    names = [shorten(row.name, LONGEST_NAME) for row in result.classes]
    shares = [[count / max(1, sum(row)) for count in row] for row in result.confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for y, row in enumerate(result.confusion if count <= MOST_NUMBERED else ()):
        for x, clips in enumerate(row):
            colour = "white" if shares[y][x] > 0.5 else "black"
            axes.text(x, y, str(clips or ""), ha="center", va="center", color=colour, fontsize=9)
    # Level names of more than three letters would overlap.
    slanted = max(map(len, names)) > 3
    every = ceil(count / MOST_NUMBERED)
    ticks, labels = range(0, count, every), names[::every]
    # A name that holds two dollar signs is no formula.
    axes.set_xticks(
        ticks,
        labels,
        rotation=45 if slanted else 0,
        ha="right" if slanted else "center",
        parse_math=False,
    )
    axes.set_yticks(ticks, labels, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{result.part}: top-1 {result.top1:.2%} of {result.clips:,} clips")
    return figure


def draw_curves(metrics: list[dict[str, Any]]) -> "Figure":
    """Draw loss and accuracy of training, and of the part that chose the checkpoint."""
    figure, (left, right) = new_figure(width=9.5, height=3.6, ncols=2)
    epochs = [line["epoch"] for line in metrics]
    for axes, name in ((left, "loss"), (right, "accuracy")):
        for part in PART_COLOURS:
            key = name if part == "train" else f"{part}_{name}"
            if key in metrics[0]:
                values = [line.get(key, nan) for line in metrics]
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
    """Draw the firing rates: a row per layer, a column per epoch.

    The label of a layer that never fired says that the layer is silent.
    """
    layers = list(metrics[0]["spike_rates"])
    figure, axes = new_figure(width=9.5, height=1.2 + 0.24 * len(layers))
    rates = [[line["spike_rates"].get(layer, nan) for line in metrics] for layer in layers]
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
