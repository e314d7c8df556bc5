"""What `export` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avsnn.cli.screen.console import out

if TYPE_CHECKING:
    from avsnn.pipeline.export.export import Export


def print_export(written: Export) -> None:
    """Print the files, the inputs of the network, and what the format cannot express."""
    beside = [name for name in written.files if name != written.path.name]
    with_them = f" ({', '.join(beside)})" if beside else ""
    same = "" if written.written else "; the same content was there before"
    out.print(f"{written.path}{with_them}{same}")
    for one in written.description.inputs:
        sides = " x ".join(map(str, one.shape))
        scaled = "" if one.mean is None else f", mean {one.mean}, std {one.std}"
        out.print(f"input {one.name}: {sides}{scaled}")
    for note in written.description.notes:
        out.print(note)
    if written.missing:
        out.print("The format cannot express these operations, and the file leaves them out:")
        for sentence in written.missing:
            out.print(f"  {sentence}")
