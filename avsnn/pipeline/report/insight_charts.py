"""Charts of what happens inside: operations, energy, time steps, features and spikes."""

from collections.abc import Sequence
from typing import Any

from avsnn.models.energy import AC_PJ, MAC_PJ
from avsnn.pipeline.evaluation.insight.record import Insight, Raster
from avsnn.pipeline.report.accuracy_charts import compared_lines
from avsnn.pipeline.report.labels import Run
from avsnn.pipeline.report.robustness_charts import INTERVAL
from avsnn.pipeline.report.specs import (
    SHARE_AXIS,
    colour,
    distinct,
    nominal,
    shape,
    tooltip,
    value,
    whole,
    whole_numbers,
)
from avsnn.pipeline.report.tables import Chart, Column, Table


def measured(runs: Sequence[Run]) -> list[tuple[Run, Insight]]:
    """Return the runs of which the inside is measured."""
    return [(run, run.results.insight) for run in runs if run.results.insight is not None]


def energy_chart(runs: Sequence[Run]) -> Chart:
    """Return the energy of every run and of the same network as an ANN."""
    columns = [
        Column("run", "Run"),
        Column("network", "Network"),
        Column("uj", "Energy per clip in µJ", "number"),
        Column("macs", "MACs", "count"),
        Column("acs", "ACs", "count"),
        Column("attention", "Share of attention products", "percent"),
        Column("parameters", "Parameters", "count"),
    ]
    rows: list[list[Any]] = []
    for run, inside in measured(runs):
        found = inside.energy
        share, size = found.attention_share, found.parameters
        spiking = found.energy_pj / 1e6
        rows.append([run.label, "spiking", spiking, found.macs, found.acs, share, size])
        ann = found.ann_energy_pj / 1e6
        rows.append([run.label, "same network as ANN", ann, found.ann_macs, 0, None, size])
    # The label of the longest bar needs room beside the bar, also on a phone.
    room = {"domain": [0, 1.25 * max(row[2] for row in rows) or 1], "nice": False}
    spec = whole(
        {
            "encoding": {
                "y": nominal("run", axis={"ticks": False, "domain": False}),
                "yOffset": nominal("network"),
                "x": value("uj", "µJ per clip", axis={"tickCount": 5}, scale=room),
                "tooltip": tooltip(columns),
            },
            "layer": [
                {"mark": "bar", "encoding": {"color": colour("network", distinct(rows, 1))}},
                {
                    "mark": {"type": "text", "align": "left", "dx": 4},
                    "encoding": {"text": value("uj", format=".3~g")},
                },
            ],
        },
        height=22 * len(rows),
    )
    note = (
        f"Arithmetic in 45 nm at 32 bits: {MAC_PJ} pJ for a multiply-accumulate (MAC), {AC_PJ} pJ "
        "for an accumulate (AC). The products of the attention count, moving data does not. An ANN "
        "reads a static image once, not T times."
    )
    return Chart("energy", "Energy per inference", note, Table(columns, rows), spec)


def layer_energy_chart(run: Run, inside: Insight) -> Chart:
    """Return the energy of every layer of a run, and of the same layer of an ANN."""
    columns = [
        Column("layer", "Layer"),
        Column("kind", "Kind"),
        Column("nj", "Energy per clip in nJ", "number"),
        Column("ann", "Energy as ANN in nJ", "number"),
        Column("macs", "MACs", "count"),
        Column("acs", "ACs", "count"),
        Column("ann_macs", "MACs as ANN", "count"),
        Column("dense", "Operations of all steps", "count"),
    ]
    rows = [
        [
            layer.layer,
            layer.kind,
            (layer.macs * MAC_PJ + layer.acs * AC_PJ) / 1e3,
            layer.ann_macs * MAC_PJ / 1e3,
            layer.macs,
            layer.acs,
            layer.ann_macs,
            layer.dense,
        ]
        for layer in inside.energy.layers
    ]
    labels = {"ticks": False, "domain": False, "labelLimit": 230, "labelFontSize": 11}
    place = nominal("layer", axis=labels)
    # Two layers of one chart share their axis, so both need the same title.
    title, axis = "energy per clip in nJ", {"tickCount": 6}
    hue = colour("network", ["spiking network", "same layer as ANN"])
    del hue["field"]
    spec = whole(
        {
            "layer": [
                {
                    "mark": {"type": "bar"},
                    "encoding": {
                        "y": place,
                        "x": value("nj", title, axis=axis),
                        "color": {**hue, "datum": "spiking network"},
                        "tooltip": tooltip(columns),
                    },
                },
                {
                    "mark": {"type": "tick", "thickness": 3, "size": 15, "opacity": 1},
                    "encoding": {
                        "y": place,
                        "x": value("ann", title, axis=axis),
                        "color": {**hue, "datum": "same layer as ANN"},
                    },
                },
            ]
        },
        height=15 * len(rows),
    )
    note = "Bars are the layers of the spiking network, ticks are the same layers of an ANN."
    name, heading = f"layers-{run.number}", f"Energy of every layer of {run.label}"
    return Chart(name, heading, note, Table(columns, rows), spec, "wide", narrowest=460)


def steps_chart(runs: Sequence[Run]) -> Chart:
    """Return the accuracy over the number of time steps."""
    columns = [Column("run", "Run"), Column("steps", "Time steps", "count"), *INTERVAL]
    rows: list[list[Any]] = [
        [run.label, one.steps, one.top1.value, one.top1.low, one.top1.high]
        for run, inside in measured(runs)
        for one in inside.steps
    ]
    rows.sort(key=lambda row: row[1])
    note = "The network answers after the first time steps; bands are 95 % intervals."
    return compared_lines(runs, "steps", "Accuracy over time steps", note, columns, rows)


def contribution_chart(runs: Sequence[Run]) -> Chart | None:
    """Return what each modality adds to the accuracy; None for networks of one modality."""
    columns = [
        Column("run", "Run"),
        Column("part", "From"),
        Column("share", "Share of clips", "percent"),
    ]
    rows = [
        [run.label, part, share]
        for run, inside in measured(runs)
        if inside.contribution is not None
        for part, share in (
            ("neither", inside.contribution.neither),
            ("sound", inside.contribution.audio),
            ("picture", inside.contribution.visual),
        )
    ]
    if not rows:
        return None
    spec = whole(
        {
            "mark": "bar",
            "encoding": {
                "y": nominal("run", axis={"ticks": False, "domain": False}),
                "yOffset": nominal("part"),
                "x": value(
                    "share", "part of the top-1 accuracy", axis=SHARE_AXIS, scale={"domainMax": 1}
                ),
                "color": colour("part", distinct(rows, 1)),
                "tooltip": tooltip(columns),
            },
        },
        height=18 * len(rows),
    )
    note = (
        "The accuracy without both modalities, and what each modality adds (Shapley values); "
        "the three add up to the accuracy."
    )
    title = "What each modality contributes"
    return Chart("contribution", title, note, Table(columns, rows), spec)


def embedding_chart(run: Run, inside: Insight) -> Chart:
    """Return the fused features of the clips in a plane, coloured by class."""
    columns = [
        Column("key", "Clip"),
        Column("truth", "True class"),
        Column("answer", "Answer"),
        Column("x", "x", "number"),
        Column("y", "y", "number"),
        Column("right", "Right"),
    ]
    rows: list[list[Any]] = [
        [clip.key, clip.truth, clip.answer, clip.x, clip.y, _yes(clip.truth == clip.answer)]
        for clip in inside.embedding.clips
    ]
    order = {one.name: place for place, one in enumerate(run.results.evaluation.classes)}
    rows.sort(key=lambda row: order.get(row[1], len(order)))
    classes = distinct(rows, 1)
    hidden = {"axis": {"labels": False, "ticks": False, "domain": False, "grid": False}}
    place = {
        "x": value("x", None, scale={"zero": False}, **hidden),
        "y": value("y", None, scale={"zero": False}, **hidden),
    }
    spec = whole(
        {
            "layer": [
                {
                    "mark": {"type": "point", "filled": True, "size": 60, "opacity": 0.85},
                    "encoding": {
                        **place,
                        "color": colour("truth", classes),
                        "shape": shape("truth", classes),
                        "tooltip": tooltip(columns),
                    },
                },
                {
                    "mark": {
                        "type": "point",
                        "shape": "circle",
                        "size": 190,
                        "filled": False,
                        "stroke": "var(--ink)",
                    },
                    "encoding": {
                        **place,
                        # A filter would leave no data, and so no scales, where all are right.
                        "opacity": {
                            "condition": {"test": "datum.right === 'no'", "value": 1},
                            "value": 0,
                        },
                        "tooltip": tooltip(columns),
                    },
                },
            ],
            "view": {"stroke": "var(--line)"},
        },
        height=340,
    )
    note = f"{inside.embedding.method} of the fused features; a ring marks a wrong answer."
    title = f"Fused features of {run.label}"
    return Chart(f"embedding-{run.number}", title, note, Table(columns, rows), spec)


def raster_charts(run: Run, inside: Insight) -> list[Chart]:
    """Return the spikes of chosen layers for one clip."""
    return [_raster(run, number, one) for number, one in enumerate(inside.rasters, start=1)]


def _raster(run: Run, number: int, raster: Raster) -> Chart:
    columns = [Column("step", "Time step", "count"), Column("neuron", "Neuron", "count")]
    rows = [[step + 1, neuron + 1] for step, neuron in raster.spikes]
    edges = {
        "left": "datum.step - 0.42",
        "right": "datum.step + 0.42",
        "below": "datum.neuron - 0.5",
        "above": "datum.neuron + 0.5",
    }
    spec = whole(
        {
            "transform": [{"calculate": edge, "as": name} for name, edge in edges.items()],
            "mark": {"type": "rect", "color": "var(--ink)"},
            "encoding": {
                "x2": {"field": "right"},
                "y2": {"field": "above"},
                "x": value(
                    "left",
                    "time step",
                    scale={"domain": [0.5, raster.steps + 0.5], "nice": False},
                    axis=whole_numbers(raster.steps),
                ),
                "y": value(
                    "below",
                    "neuron",
                    scale={"domain": [0, raster.neurons + 1], "nice": False},
                    axis={"grid": False, "tickCount": 4, "format": "d"},
                ),
                "tooltip": tooltip(columns),
            },
        },
        height=190,
    )
    cells = raster.steps * raster.neurons
    fired = f"{len(raster.spikes):,} spikes in {cells:,} places"
    if not raster.spikes:
        fired = "This layer is silent: no neuron spikes for this clip."
    name = f"raster-{run.number}-{number}"
    # A chart without data has no scales.
    chart = spec if raster.spikes else None
    title = raster.layer.removesuffix(".lif")
    return Chart(name, title, fired, Table(columns, rows), chart, "third")


def neurobench_table(runs: Sequence[Run]) -> Chart:
    """Return the figures of NeuroBench under its own keys."""
    found = measured(runs)
    columns = [
        Column("key", "Key"),
        *(Column(run.label, run.label, "number") for run, _ in found),
    ]
    plain = ("Footprint", "ParameterCount", "ConnectionSparsity", "ActivationSparsity")
    rows: list[list[Any]] = [
        [key, *(getattr(inside.neurobench, key) for _, inside in found)] for key in plain
    ]
    for key in ("Effective_MACs", "Effective_ACs", "Dense"):
        of_runs = [inside.neurobench.SynapticOperations.get(key) for _, inside in found]
        rows.append([f"SynapticOperations / {key}", *of_runs])
    note = "By the rules of NeuroBench 2.3, which differ from the rules of the energy above."
    return Chart("neurobench", "NeuroBench", note, Table(columns, rows), None)


def fans_table(run: Run, inside: Insight) -> Chart:
    """Return fan-in and fan-out of every layer of weights."""
    columns = [
        Column("layer", "Layer"),
        Column("fan_in", "Fan-in", "count"),
        Column("fan_out", "Fan-out", "count"),
        Column("fits", f"Within {inside.fan_limit:,}"),
    ]
    rows = [[fan.layer, fan.fan_in, fan.fan_out, _yes(fan.fits)] for fan in inside.fans]
    over = sum(not fan.fits for fan in inside.fans)
    note = f"{over} of {len(rows)} layers are beyond the limit." if over else "All layers fit."
    name, title = f"fans-{run.number}", f"Fan-in and fan-out of {run.label}"
    return Chart(name, title, note, Table(columns, rows), None)


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"
