"""A picture on a terminal: with a protocol for pictures, or in coloured half blocks."""

from __future__ import annotations

import os
import sys
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment, Segments
from rich.style import Style

from avsnn.cli.screen.console import out
from avsnn.cli.streams import printable
from avsnn.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from avsnn.pipeline.inspection.clip import Clip

# Values of TERM, which a terminal sets itself and which ssh passes on, and of TERM_PROGRAM.
KITTY_TERMS = ("xterm-kitty", "xterm-ghostty")
ITERM2_PROGRAMS = ("iTerm.app", "WezTerm", "mintty")
# Programs that divide a terminal swallow pictures, but pass coloured characters on.
DIVIDED_TERMS = ("screen", "tmux")

# A picture takes so many columns of a terminal, if the terminal has as many.
FEWEST_COLUMNS, MOST_COLUMNS = 60, 130

# The upper half of a character cell, whose lower half shows the background.
HALF_BLOCK = "▀"

# With so many px per inch, letters of 9 points need no more room than letters of the terminal.
PX_PER_INCH = 12


class Display(NamedTuple):
    """How a terminal shows a picture.

    Attributes:
        protocol: kitty's graphics protocol, iTerm2's inline images, or half blocks.
        columns: width of the picture in columns of the terminal.
        inches: width of the figure in inches; None takes any width.
    """

    protocol: Literal["kitty", "iterm2", "blocks"]
    columns: int
    inches: float | None = None


def choose_display() -> Display:
    """Return how this terminal shows a picture.

    The answer depends on variables of the environment alone. A question to the terminal itself
    would have to read the answer from standard input, which may belong to another program.

    Raises:
        UserError: standard output is no terminal, or the terminal cannot show a picture.
    """
    if not sys.stdout.isatty():
        raise UserError(
            "the output goes to no terminal that could show a picture; write the picture to a file "
            "with --out FILE.png."
        )
    columns = min(out.width, MOST_COLUMNS)
    term, program = os.environ.get("TERM", ""), os.environ.get("TERM_PROGRAM", "")
    if not term.startswith(DIVIDED_TERMS):
        if term in KITTY_TERMS:
            return Display("kitty", columns)
        if program in ITERM2_PROGRAMS or os.environ.get("LC_TERMINAL") == "iTerm2":
            return Display("iterm2", columns)
    reason = _why_no_blocks()
    if reason:
        raise UserError(f"{reason}; write the picture to a file with --out FILE.png.")
    return Display("blocks", columns, columns / PX_PER_INCH)


def _why_no_blocks() -> str:
    """Return why the terminal cannot show half blocks in colour; empty if the terminal can."""
    if out.no_color or out.color_system not in ("256", "truecolor"):
        return "this terminal shows too few colours for a picture (see TERM, COLORTERM, NO_COLOR)"
    try:
        HALF_BLOCK.encode(out.encoding)
    except UnicodeEncodeError:
        return f"this terminal shows only characters of {out.encoding} (see LC_ALL)"
    if out.width < FEWEST_COLUMNS:
        return f"a picture needs {FEWEST_COLUMNS} columns, and this terminal has {out.width}"
    return ""


def show_picture(figure: Figure, display: Display) -> None:
    """Show a figure on the terminal."""
    if display.protocol == "blocks":
        out.print(_half_blocks(figure, display.columns))
        return
    from avsnn.pipeline.pictures import png

    picture = b64encode(png(figure)).decode()
    encode = _kitty if display.protocol == "kitty" else _iterm2
    sys.stdout.write(encode(picture, display.columns) + "\n")
    sys.stdout.flush()


def _kitty(picture: str, columns: int) -> str:
    """Return the escape sequences of kitty's graphics protocol for a PNG in base64.

    A sequence holds at most 4,096 characters of the picture; ``m=1`` says that more follow. With
    ``q=2``, the terminal sends no answer, which nobody would read.
    """
    pieces = [picture[at : at + 4096] for at in range(0, len(picture), 4096)]
    head = f"a=T,f=100,q=2,c={columns},"
    return "".join(
        f"\x1b_G{head if n == 0 else ''}m={int(n < len(pieces) - 1)};{piece}\x1b\\"
        for n, piece in enumerate(pieces)
    )


def _iterm2(picture: str, columns: int) -> str:
    """Return the escape sequence of iTerm2's inline images for a PNG in base64."""
    return f"\x1b]1337;File=inline=1;width={columns};preserveAspectRatio=1:{picture}\x07"


def _half_blocks(figure: Figure, columns: int) -> Segments:
    """Draw a figure in characters: a cell shows two px, one above the other, or a letter.

    The letters of the figure would be a few px high; so they become letters of the terminal.
    """
    pixels, texts = _draw_small(figure, columns)
    upper, lower = pixels[0::2], pixels[1::2]
    cells = [
        [
            (HALF_BLOCK, Style(color=_colour(above), bgcolor=_colour(below)))
            for above, below in zip(*rows, strict=True)
        ]
        for rows in zip(upper, lower, strict=True)
    ]
    for row, column, text, colour in texts:
        for character in text:
            width = cell_len(character)
            if 0 <= row < len(cells) and 0 <= column <= columns - width and width:
                mean = (upper[row, column] / 2 + lower[row, column] / 2).astype(int)
                cells[row][column] = (character, Style(color=colour, bgcolor=_colour(mean)))
                if width == 2:
                    # The letter covers the next cell too.
                    cells[row][column + 1] = ("", Style())
            column += width
    lines = [[Segment(text, style) for text, style in row] + [Segment.line()] for row in cells]
    return Segments(segment for line in lines for segment in line)


def _draw_small(
    figure: Figure, columns: int
) -> tuple[NDArray[Any], list[tuple[int, int, str, str]]]:
    """Draw a figure without its letters, so small that a px is as wide as a character.

    Returns:
        the pixels ``[2 * rows, columns, 3]``; row, column, letters and colour of each text.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.colors import to_hex

    from avsnn.pipeline.pictures import missing_letters_allowed

    texts = []

    class Renderer(RendererAgg):
        """Draws everything except texts, and lists the texts."""

        def draw_text(
            self, gc: Any, x: float, y: float, s: str, prop: Any, angle: float,
            ismath: Any = False, mtext: Any = None,
        ) -> None:  # fmt: skip
            text = printable(s)
            width = self.get_text_width_height_descent(s, prop, ismath)[0]
            spare = width - cell_len(text)
            share = {"center": 0.5, "right": 1.0}.get(mtext.get_ha() if mtext else "left", 0.0)
            middle = y - 0.35 * self.points_to_pixels(prop.get_size_in_points())
            texts.append((int(middle // 2), round(x + share * spare), text, to_hex(gc.get_rgb())))

    rows = round(figure.get_figheight() * PX_PER_INCH / 2)
    figure.set_dpi(PX_PER_INCH)
    figure.set_size_inches(columns / PX_PER_INCH, 2 * rows / PX_PER_INCH)
    renderer = Renderer(columns, 2 * rows, PX_PER_INCH)
    with missing_letters_allowed():
        figure.draw(renderer)
    return np.asarray(renderer.buffer_rgba())[..., :3], texts


def _colour(rgb: NDArray[Any]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def print_clip(clip: Clip, *, named: bool, picture: Path | None) -> None:
    """Print which clip the picture shows, and how to name another clip."""
    name = clip.manifest.name
    if picture is not None:
        out.print(f"{name}: clip {clip.row.key} is in {picture}.")
    if not named:
        out.print(
            f"{clip.row.key} is the first of {clip.clips:,} clips by their keys; name another with "
            f"'avsnn inspect {name} KEY'."
        )
