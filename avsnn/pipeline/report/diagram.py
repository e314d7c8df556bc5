"""The network as a diagram: the blocks of both streams, and the firing rate of every layer.

The diagram has two layouts. In the wide layout, the clip runs from left to right and the streams
lie one above the other; in the tall layout for phones, the clip runs downwards and the streams
stand side by side.
"""

from collections.abc import Mapping
from math import sqrt
from typing import NamedTuple

from avsnn.pipeline.report.tables import Chart, Column, Table

BOX_WIDTH, TITLE_HEIGHT, LAYER_HEIGHT = 166, 26, 18
GAP_ACROSS, MARGIN = 22, 2
GAP_ALONG = {"wide": 70, "tall": 34}

# The strongest tint of a layer, so that the text on the tint stays readable.
STRONGEST = 0.62

# Methods whose streams meet in the readout alone, and the method whose fusion is a third stream
# beside the MLPs of both streams.
WITHOUT_FUSION = ("add", "concat")
THIRD_STREAM = "cmci"

LANES = ("audio", "visual")
STAGES = ("input", "patch", "fusion", "joint", "third", "mlp", "readout")


class Layer(NamedTuple):
    """A layer in a block.

    Attributes:
        name: name of the layer inside the block.
        rate: spikes per neuron and time step, as text.
        tint: strength of the colour, from 0 to 1.
    """

    name: str
    rate: str
    tint: float


class Block(NamedTuple):
    """A block of the network.

    Attributes:
        stage: place of the block along the way of a clip, one of `STAGES`.
        lane: ``audio``, ``visual`` or ``both``.
        title: name of the block.
        layers: the layers that spike.
    """

    stage: str
    lane: str
    title: str
    layers: list[Layer]

    @property
    def height(self) -> int:
        """Height of the block in px."""
        return TITLE_HEIGHT + LAYER_HEIGHT * len(self.layers) + (6 if self.layers else 0)


class Box(NamedTuple):
    """A block at its place in a drawing, in px."""

    block: Block
    x: float
    y: float


class Drawing(NamedTuple):
    """A layout of the diagram.

    Attributes:
        kind: ``wide`` or ``tall``.
        width: width in px.
        height: height in px.
        boxes: the blocks.
        arrows: the way of a clip, as paths of SVG.
    """

    kind: str
    width: float
    height: float
    boxes: list[Box]
    arrows: list[str]


class Diagram(NamedTuple):
    """The diagram of one network, in both layouts, and its firing rates as a table."""

    table: Chart
    drawings: list[Drawing]


def draw_network(name: str, title: str, method: str, rates: Mapping[str, float]) -> Diagram:
    """Draw a network.

    Args:
        name: name of the figure.
        title: title of the figure.
        method: name of the fusion method.
        rates: spikes per neuron and time step, by the name of the layer.
    """
    blocks = _blocks(method, rates)
    columns = [
        Column("layer", "Layer"),
        Column("rate", "Spikes per neuron and step", "number"),
    ]
    note = (
        "A number is spikes per neuron and time step; a layer of stronger colour fires more often."
    )
    table = Chart(name, title, note, Table(columns, list(rates.items())), None, "wide")
    return Diagram(table, [_drawing("wide", blocks), _drawing("tall", blocks)])


def _blocks(method: str, rates: Mapping[str, float]) -> list[Block]:
    """Return the blocks of a network from the names of its layers."""
    most = max(rates.values(), default=0) or 1
    layers: dict[tuple[str, str], list[Layer]] = {}
    for name, rate in rates.items():
        stage, lane, inside = _place(name)
        tint = STRONGEST * sqrt(rate / most)
        text = "silent" if rate == 0 else f"{rate:.3f}" if rate >= 0.0005 else "<0.001"
        layers.setdefault((stage, lane), []).append(Layer(inside, text, tint))
    if ("patch", "both") in layers:
        lane = method if method in LANES else "both"
        return [
            Block("input", "both", {"audio": "sound", "visual": "picture"}.get(lane, "input"), []),
            Block("patch", "both", "patch split", layers[("patch", "both")]),
            Block("fusion", "both", "self-attention", layers.get(("fusion", "both"), [])),
            Block("mlp", "both", "MLP", layers.get(("mlp", "both"), [])),
            Block("readout", "both", "mean, linear readout", []),
        ]
    blocks = []
    for lane, title in (("audio", "sound"), ("visual", "picture")):
        blocks.append(Block("input", lane, title, []))
        blocks.append(Block("patch", lane, "patch split", layers.get(("patch", lane), [])))
        fusion = layers.get(("fusion", lane), [])
        if fusion:
            blocks.append(Block("fusion", lane, "cross attention", fusion))
        blocks.append(Block("mlp", lane, "MLP", layers.get(("mlp", lane), [])))
    third = layers.get(("fusion", "both"), [])
    has_fusion = any(block.stage == "fusion" for block in blocks)
    if third or not (has_fusion or method in WITHOUT_FUSION):
        stage = "third" if method == THIRD_STREAM else "joint"
        blocks.append(Block(stage, "both", f"fusion: {method}"[:24], third))
    blocks.append(Block("readout", "both", "mean, linear readout", []))
    return blocks


def _place(name: str) -> tuple[str, str, str]:
    """Return the stage and the lane of a layer, and the name of the layer inside its block."""
    words = name.removesuffix(".lif").split(".")
    first = words[0]
    for lane in LANES:
        if first == f"{lane}_patch":
            return "patch", lane, _inside(words[1:])
        if first == f"{lane}_mlp":
            return "mlp", lane, _inside(words[1:])
        if first == "fusion" and len(words) > 1 and words[1] == lane:
            return "fusion", lane, _inside(words[2:])
        if first == "fusion" and len(words) > 1 and words[1].startswith(f"{lane}_"):
            return "fusion", lane, _inside([words[1].removeprefix(f"{lane}_"), *words[2:]])
    stage = {"patch": "patch", "mlp": "mlp"}.get(first, "fusion")
    return stage, "both", _inside(words[1:] if len(words) > 1 else words)


def _inside(words: list[str]) -> str:
    name = " ".join(words).replace("stages ", "stage ").replace("lif", "").strip()
    return (name or "output")[:20]


def _drawing(kind: str, blocks: list[Block]) -> Drawing:
    """Place the blocks, and connect each block with the blocks before the block."""
    is_wide = kind == "wide"
    stages = [stage for stage in STAGES if any(block.stage == stage for block in blocks)]
    lanes = [lane for lane in LANES if any(block.lane == lane for block in blocks)] or ["both"]
    lane_height = {
        lane: max(block.height for block in blocks if block.lane == lane) for lane in lanes
    }
    across = sum(lane_height.values()) + GAP_ACROSS * (len(lanes) - 1)
    width = len(lanes) * BOX_WIDTH + GAP_ACROSS * (len(lanes) - 1)
    boxes, along = [], float(MARGIN)
    for stage in stages:
        of_stage = [block for block in blocks if block.stage == stage]
        depth = BOX_WIDTH if is_wide else max(block.height for block in of_stage)
        for block in of_stage:
            if is_wide:
                top = MARGIN + (
                    lane_height[lanes[0]] + GAP_ACROSS if block.lane == lanes[-1] != lanes[0] else 0
                )
                room = across if block.lane == "both" else lane_height[block.lane]
                boxes.append(Box(block, along, top + (room - block.height) / 2))
            else:
                left = BOX_WIDTH + GAP_ACROSS if block.lane == lanes[-1] != lanes[0] else 0
                room = width if block.lane == "both" else BOX_WIDTH
                boxes.append(Box(block, MARGIN + left + (room - BOX_WIDTH) / 2, along))
        along += depth + GAP_ALONG[kind]
    along += MARGIN - GAP_ALONG[kind]
    across_all = 2 * MARGIN + (across if is_wide else width)
    size = (along, across_all) if is_wide else (across_all, along)
    return Drawing(kind, size[0], size[1], boxes, _arrows(boxes, stages, is_wide=is_wide))


def _arrows(boxes: list[Box], stages: list[str], *, is_wide: bool) -> list[str]:
    """Return the arrows between the boxes.

    The two streams join in a block of both lanes. A block of cross-modal attention also reads the
    other stream.
    """
    return [
        _arrow(before, box, is_wide=is_wide)
        for box in boxes
        for before in boxes
        if _leads_to(before.block, box.block, boxes, stages)
    ]


def _leads_to(before: Block, block: Block, boxes: list[Box], stages: list[str]) -> bool:
    distance = stages.index(block.stage) - stages.index(before.stage)
    if distance < 1:
        return False
    same_lane = before.lane == block.lane or "both" in (before.lane, block.lane)
    if (not same_lane and block.stage != "fusion") or _pass_by(before, block):
        return False
    between = [
        box.block
        for box in boxes
        if stages.index(before.stage) < stages.index(box.block.stage) < stages.index(block.stage)
        and (box.block.lane == before.lane or box.block.lane == "both")
        and not (_pass_by(before, box.block) or _pass_by(box.block, block))
    ]
    return not between


def _pass_by(before: Block, block: Block) -> bool:
    """Return whether two blocks are side by side: the third stream passes by the MLPs."""
    return {before.stage, block.stage} == {"third", "mlp"}


def _arrow(start: Box, end: Box, *, is_wide: bool) -> str:
    """Return a curve from the end of one box to the beginning of another, as a path of SVG."""
    if is_wide:
        x0, y0 = start.x + BOX_WIDTH, start.y + start.block.height / 2
        x1, y1 = end.x - 5, end.y + end.block.height / 2
        bend = (x1 - x0) / 2
        return f"M{x0:g} {y0:g}C{x0 + bend:g} {y0:g} {x1 - bend:g} {y1:g} {x1:g} {y1:g}"
    x0, y0 = start.x + BOX_WIDTH / 2, start.y + start.block.height
    x1, y1 = end.x + BOX_WIDTH / 2, end.y - 5
    bend = (y1 - y0) / 2
    return f"M{x0:g} {y0:g}C{x0:g} {y0 + bend:g} {x1:g} {y1 - bend:g} {x1:g} {y1:g}"
