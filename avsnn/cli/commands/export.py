"""The command `export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from avsnn.cli.options import AsJson, Datasets, Plugins, Run

Kind = Annotated[
    Literal["onnx", "torchscript", "safetensors", "nir", "huggingface"],
    typer.Option(
        "--format",
        help="onnx for onnxruntime; torchscript for torch.jit.load; safetensors for avsnn; nir for "
        "neuromorphic tools; huggingface for a folder with a model card.",
    ),
]
Target = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="PATH",
        help="File to write, or folder for huggingface; by default in RUN/export.",
    ),
]


def export_command(
    run: Run,
    kind: Kind,
    out: Target = None,
    plugins: Plugins = None,
    as_json: AsJson = False,
    datasets: Datasets = None,
) -> None:
    """Write the best checkpoint of a run in a file format of another program.

    No data are needed. The exported network takes normalised inputs, as every file describes. onnx
    needs 'pip install onnx onnxscript onnxruntime', and nir needs 'pip install nir'. A format that
    cannot express an operation of the network says so.
    """
    from avsnn.cli.screen.console import print_json
    from avsnn.cli.screen.export import print_export
    from avsnn.pipeline.export.export import export
    from avsnn.pipeline.runs.plugin import load_plugins

    load_plugins(plugins or ())
    written = export(run, kind=kind, out=out)
    if as_json:
        print_json(
            {
                "path": str(written.path),
                "files": written.files,
                "written": written.written,
                "missing": written.missing,
                "description": written.description.model_dump(mode="json"),
            }
        )
    else:
        print_export(written)
