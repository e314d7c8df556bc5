"""What all pictures share: an empty figure, names that fit, and the bytes of a PNG."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(*, width: float, height: float, **subplots: Any) -> tuple["Figure", Any]:
    """Return a figure of a size in inches, and its axes as `Figure.subplots` gives the axes."""
    # `Figure` without pyplot, because pyplot picks a window system and keeps global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**subplots)


def shorten(name: str, longest: int) -> str:
    """Return a name of at most ``longest`` characters; a cut name ends with an ellipsis."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def png(figure: "Figure") -> bytes:
    """Return a figure as the bytes of a PNG file."""
    # Without the version of matplotlib in the file, the same numbers give the same bytes.
    return encode(figure, "png", metadata={"Software": None})


def encode(figure: "Figure", kind: str, **options: Any) -> bytes:
    """Return a figure as the bytes of a file of a kind that matplotlib writes."""
    buffer = BytesIO()
    with missing_letters_allowed():
        figure.savefig(buffer, format=kind, dpi=130, **options)
    return buffer.getvalue()


@contextmanager
def missing_letters_allowed() -> Iterator[None]:
    """Draw a box for a letter that the font lacks, without a warning on stderr."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font", category=UserWarning
        )
        yield
