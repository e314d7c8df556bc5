"""The command `inspect`."""

from pathlib import Path
from typing import Annotated

import typer

from avsnn.cli.options import Dataset, Datasets, Root, SplitName

Key = Annotated[
    str | None,
    typer.Argument(help="Key of a clip, by default the first key in alphabetical order."),
]
PictureFile = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Write the picture to this file (.png, .pdf, .svg or .jpg) instead of showing the "
        "picture in the terminal.",
    ),
]


def inspect_command(
    dataset: Dataset,
    key: Key = None,
    out: PictureFile = None,
    split: SplitName = None,
    root: Root = Path("data"),
    datasets: Datasets = None,
) -> None:
    """Show one clip of a prepared data set as a picture.

    The picture shows the frames of the clip, and the spectrogram of its sound with the settings of
    the audio cache. Of event data, the picture shows event frames, and a raster of the cochlea.
    Without --out, the picture appears in the terminal: sharp in kitty, Ghostty, iTerm2, WezTerm and
    mintty, in coloured half blocks in other terminals.
    """
    from avsnn.cli.screen.picture import choose_display, print_clip, show_picture
    from avsnn.pipeline.inspection.save import require_picture_path

    if out is not None:
        require_picture_path(out)
    display = choose_display() if out is None else None
    # These modules import torch, and a mistake in the command need not wait for torch.
    from avsnn.pipeline.inspection.clip import read_clip
    from avsnn.pipeline.inspection.draw import draw_clip
    from avsnn.pipeline.inspection.save import save_picture

    clip = read_clip(dataset, key, split=split, root=root)
    figure = draw_clip(clip, width=display.inches if display else None)
    if display is not None:
        show_picture(figure, display)
    if out is not None:
        save_picture(figure, out)
    print_clip(clip, named=key is not None, picture=out)
