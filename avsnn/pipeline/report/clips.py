"""Single clips in the page: examples, and maps of attention over their pictures."""

from collections.abc import Sequence
from typing import NamedTuple

from avsnn.pipeline.evaluation.examples import Example
from avsnn.pipeline.evaluation.insight.record import AttentionMap
from avsnn.pipeline.report.labels import Run

# The strongest veil over a place without attention; the picture stays visible below.
DARKEST = 0.86


class Cell(NamedTuple):
    """One token of an attention map: its place in the grid, and the veil over the token."""

    x: int
    y: int
    veil: float


class Veil(NamedTuple):
    """An attention map over a picture.

    Attributes:
        title: what the picture shows.
        picture: the picture as PNG in base64; empty if there is no picture.
        columns: number of tokens in a row.
        rows: number of rows of tokens.
        cells: the tokens; None if the attention is silent.
    """

    title: str
    picture: str
    columns: int
    rows: int
    cells: list[Cell] | None


class Attention(NamedTuple):
    """The attention of a network to one clip."""

    key: str
    truth: str
    answer: str
    veils: list[Veil]


def attention_of(run: Run) -> list[Attention]:
    """Return the maps of attention of a run, over the pictures that are known."""
    inside, examples = run.results.insight, run.results.examples
    if inside is None:
        return []
    known = {one.key: one for one in _all(examples.mistakes, examples.right)} if examples else {}
    return [_attention(one, known.get(one.key)) for one in inside.attention]


def _attention(found: AttentionMap, example: Example | None) -> Attention:
    # The picture of a sound shows low frequencies at the bottom, and the first row of tokens holds
    # the lowest frequencies.
    sound = found.spectrogram[::-1]
    veils = [
        _veil("picture", example.frame if example else "", found.frame),
        _veil("sound", example.spectrogram if example else "", sound),
    ]
    return Attention(found.key, found.truth, found.answer, veils)


def _veil(title: str, picture: str, grid: Sequence[Sequence[float]]) -> Veil:
    """Return a map as a veil, which is dark where the attention does not look."""
    most = max((share for row in grid for share in row), default=0)
    cells = None
    if most > 0:
        cells = [
            Cell(x, y, round(DARKEST * (1 - share / most), 3))
            for y, row in enumerate(grid)
            for x, share in enumerate(row)
        ]
    return Veil(title, picture, len(grid[0]) if grid else 0, len(grid), cells)


def _all(*groups: Sequence[Example]) -> list[Example]:
    return [example for group in groups for example in group]
