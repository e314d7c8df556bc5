"""9. Export: writes the trained network of a run in a file format of another program."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import (
    holds,
    not_written_error,
    remove_partial_files_of_dead_writers,
    write_if_changed,
)
from avsnn.pipeline.export.hub_folder import holds_only_an_export, hub_files
from avsnn.pipeline.export.nir_file import nir_files
from avsnn.pipeline.export.onnx_file import onnx_file
from avsnn.pipeline.export.run_network import NetworkDescription, RunNetwork, open_network
from avsnn.pipeline.export.safetensors_file import safetensors_file
from avsnn.pipeline.export.torchscript_file import torchscript_file

Format = Literal["onnx", "torchscript", "safetensors", "nir", "huggingface"]
FORMATS: tuple[Format, ...] = get_args(Format)


class Export(NamedTuple):
    """What an export wrote.

    Attributes:
        path: the file or the folder.
        files: names of the files in the folder, or of the file and the files beside it.
        written: whether anything was written; false if the same bytes were there before.
        description: what a user of the network must know.
        missing: operations that the format cannot express, as sentences.
    """

    path: Path
    files: list[str]
    written: bool
    description: NetworkDescription
    missing: list[str]


def export(folder: Path, *, kind: Format, out: Path | None = None) -> Export:
    """Write the network of a run, with the weights of the best checkpoint.

    Every file is written whole or not at all, and an export of the same run writes the same bytes.

    Args:
        folder: the run folder.
        kind: the format.
        out: path of the file to write, or of the folder for ``huggingface``; by default in the
            folder ``export`` of the run.

    Raises:
        UserError: there is no such format, the folder is not a run or has no checkpoint yet, a
            package is missing, the format cannot express the network, or the place cannot be
            written.
        RunError: the checkpoint cannot be read, or the disk is full.
    """
    if kind not in FORMATS:
        raise UserError(f"kind cannot be {kind!r}: there are {', '.join(FORMATS)}.")
    target = out or folder / "export" / DEFAULT_NAMES[kind]
    network = open_network(folder)
    _require_place(target, folder, is_folder=kind == "huggingface")
    missing: list[str] = []
    if kind == "nir":
        graph = nir_files(network, target.name)
        contents, missing = graph.files, graph.missing
    else:
        contents = _WRITERS[kind](network, target.name)
    place = target if kind == "huggingface" else target.parent
    with _failures_of(target):
        written = _write(place, contents)
    return Export(target, list(contents), written, network.description, missing)


DEFAULT_NAMES: dict[Format, str] = {
    "onnx": "model.onnx",
    "torchscript": "model.pt",
    "safetensors": "model.safetensors",
    "nir": "model.nir",
    "huggingface": "huggingface",
}

# Functions that return the bytes of every file by its name, from the network and the file's name.
_WRITERS: dict[Format, Callable[[RunNetwork, str], dict[str, bytes]]] = {
    "onnx": lambda network, name: {name: onnx_file(network)},
    "torchscript": lambda network, name: {name: torchscript_file(network)},
    "safetensors": lambda network, name: {name: safetensors_file(network)},
    "huggingface": lambda network, _name: hub_files(network),
}


def _require_place(target: Path, run: Path, *, is_folder: bool) -> None:
    """Refuse a place that holds something else, or that is in a folder that does not exist.

    Raises:
        UserError: the place is a folder in place of a file or the reverse, is a file of the run, is
            a folder that holds other files, or is in no folder.
    """
    with _failures_of(target):
        if is_folder and target.exists():
            if not target.is_dir():
                raise UserError(f"{target} is a file; give the name of a folder to write.")
            is_default = target.resolve() == run.resolve() / "export" / target.name
            if not is_default and not holds_only_an_export(target):
                raise UserError(
                    f"{target} holds other files and no earlier export; give another folder."
                )
        if not is_folder and target.is_dir():
            raise UserError(f"{target} is a folder; give the name of the file to write.")
        if not is_folder and target.exists() and not target.is_file():
            raise UserError(f"{target} is no plain file; give the name of a file to write.")
        inside = target.resolve().is_relative_to(run.resolve())
        if inside and not target.resolve().is_relative_to(run.resolve() / "export"):
            raise UserError(
                f"{target} is in the run folder beside the files of the run; give a place in "
                f"{run / 'export'}, or outside {run}."
            )
        folder = target.parent
        if not folder.exists() and folder.resolve() != run.resolve() / "export":
            raise UserError(f"{target}: there is no folder {folder}; make the folder first.")


def _write(folder: Path, contents: dict[str, bytes]) -> bool:
    """Write files, and return whether any file changed.

    The last file makes the export complete: no program reads the other files without that file. So
    that file goes first, if an earlier export is there, and comes last.
    """
    remove_partial_files_of_dead_writers(folder)
    changed = [name for name, content in contents.items() if not holds(folder / name, content)]
    if changed:
        (folder / list(contents)[-1]).unlink(missing_ok=True)
    for name, content in contents.items():
        write_if_changed(folder / name, content)
    return bool(changed)


@contextmanager
def _failures_of(target: Path) -> Iterator[None]:
    """Turn an error of the file system into one sentence."""
    try:
        yield
    except OSError as error:
        raise not_written_error(target, error, "give another place with --out") from None
