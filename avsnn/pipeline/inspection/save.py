"""Writes a picture to a file, whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import not_written_error, write_atomically
from avsnn.pipeline.pictures import encode, png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The kinds that matplotlib writes without a program beside it, and that every viewer shows.
SUFFIXES = (".png", ".pdf", ".svg", ".jpg", ".jpeg")


def require_picture_path(path: Path) -> None:
    """Refuse a path to which no picture can be written, before the work starts.

    Raises:
        UserError: the path is a folder, or its suffix names no kind of picture.
    """
    try:
        is_folder = path.is_dir()
    except OSError as error:
        raise not_written_error(path, error) from None
    if is_folder:
        raise UserError(f"{path} is a folder; give the name of the file to write.")
    if path.suffix.lower() not in SUFFIXES:
        known = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise UserError(f"{path} names no kind of picture; end the name with {known}.")


def save_picture(figure: "Figure", path: Path) -> None:
    """Write a picture to a file, whole or not at all.

    Raises:
        UserError: the file cannot be written.
        RunError: the disk is full.
    """
    kind = path.suffix.lower().removeprefix(".")
    data = png(figure) if kind == "png" else encode(figure, kind)
    try:
        write_atomically(path, data)
    except OSError as error:
        raise not_written_error(path, error) from None
