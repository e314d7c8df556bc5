"""TorchScript: a program that ``torch.jit.load`` runs without avsnn and without Python code."""

import io
import zipfile

import torch

from avsnn.models.plain_network import plain_operations
from avsnn.pipeline.export.extras import recording
from avsnn.pipeline.export.run_network import RunNetwork

# The file beside the program that holds the description of the network.
DESCRIPTION = "avsnn.json"


def torchscript_file(network: RunNetwork, *, spikes: bool = False) -> bytes:
    """Return the network as a TorchScript file that takes any number of clips.

    torch numbers the classes of all programs of a process, so a second export of the same process
    gives other names inside the file. The first exports of two processes give the same bytes.

    Args:
        network: the network.
        spikes: also return the spikes of every layer of neurons.
    """
    plain = network.plain()
    plain.returns_spikes = spikes
    with recording("an export to TorchScript"), plain_operations():
        program: torch.jit.ScriptModule = torch.jit.trace(  # type: ignore[no-untyped-call]
            plain, network.example_inputs(), check_trace=False
        )
        buffer = io.BytesIO()
        torch.jit.save(
            program, buffer, _extra_files={DESCRIPTION: network.description.model_dump_json()}
        )
    return _without_traces(buffer)


def _without_traces(file: io.BytesIO) -> bytes:
    """Return a TorchScript file without the records that name source files of this machine."""
    kept = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(kept, "w") as new:
        for member in old.infolist():
            if not member.filename.endswith(".debug_pkl"):
                # A new entry has a fixed time, so the same network gives the same bytes.
                new.writestr(zipfile.ZipInfo(member.filename), old.read(member))
    return kept.getvalue()
