"""The command `predict`."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from avsnn.cli.options import Datasets, Device, Plugins, Run
from avsnn.errors import RunError, UserError


def as_path(text: str) -> Path:
    """Return a path; an empty word, as of a variable that is not set, would be the current folder.

    Raises:
        UserError: the word is empty.
    """
    if not text:
        raise UserError("the path of a clip is empty; give files or folders with clips.")
    return Path(text)


Clips = Annotated[
    list[Path],
    typer.Argument(
        parser=as_path,
        metavar="CLIP...",
        help="Videos, pictures, sounds, recordings of event sensors, or folders of them.",
    ),
]
FormatOption = Annotated[
    Literal["table", "jsonl", "csv"] | None,
    typer.Option(
        "--format",
        help="Form of the answers: a table, a JSON object on each line, or CSV; by default a "
        "table, or what the name of the --out file says (.jsonl, .csv).",
    ),
]
OutFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Write the answers to this file."),
]
DecodingWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        metavar="N",
        help="Number of processes that decode clips, by default one per core.",
    ),
]


def predict_command(
    run: Run,
    clips: Clips,
    form: FormatOption = None,
    out: OutFile = None,
    device: Device = "auto",
    workers: DecodingWorkers = None,
    plugins: Plugins = None,
    datasets: Datasets = None,
) -> None:
    """Answer for clips in files: which class, how confident, and the three best classes.

    A clip is a video with sound, or a picture (or a video) and a sound of the same name, such as
    x.png and x.wav; of event data, a recording of a camera and of a cochlea of the same name. If a
    clip has no picture or no sound, the network gets zeros, and the answer says so. A file that
    cannot be decoded is an answer with the reason; the other clips are answered all the same, and
    the exit code is 1. The data of the training are not needed.
    """
    from avsnn.cli.screen.predictions import PredictionWriter, choose_format

    chosen = choose_format(form, out)
    # The decoders need the cores on which threads of torch would wait for each other in a loop. The
    # library reads the variable when torch is imported.
    os.environ["GOMP_SPINCOUNT"] = "0"
    # These modules import torch, and a mistake in the command need not wait for torch.
    from contextlib import closing

    from avsnn.cli.screen.console import say
    from avsnn.cli.screen.progress import make_progress
    from avsnn.pipeline.inference.device import choose_device
    from avsnn.pipeline.prediction.predict import predict_files
    from avsnn.pipeline.runs.plugin import load_plugins
    from avsnn.pipeline.runs.stored_run import StoredRun

    load_plugins(plugins or ())
    predictions = predict_files(
        StoredRun(run),
        clips,
        device=choose_device(device),
        workers=workers,
        progress=make_progress(),
        say=say,
        out=out,
    )
    with closing(predictions), PredictionWriter(chosen, out, clips) as writer:
        for prediction in predictions:
            writer.add(prediction)
    if writer.unanswered:
        noun = f"clip{'' if writer.clips == 1 else 's'}"
        if writer.unanswered == 1:
            advice = "has no answer; see the reason in its row."
        else:
            advice = "have no answer; see the reasons in their rows."
        raise RunError(f"{writer.unanswered:,} of {writer.clips:,} {noun} {advice}")
