"""Read the arrays recorded from the authors' implementation (tests/golden/README.md)."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avsnn.models.authors_checkpoint import AuthorsState, never_called, our_name
from avsnn.models.zoo import build, import_authors_state

TESTS = Path(__file__).resolve().parents[1]
PLACES = (TESTS / "golden", TESTS.parents[1] / "shared" / "golden")

# Arguments of `import_authors_state` for files whose weights fit more than one network.
HINTS: dict[str, dict[str, Any]] = {
    "spatialtemporal": {},
    "cmci": {},
    "spatial": {"attention": "spatial"},
    "temporal": {"attention": "temporal"},
    "nocross_add": {"method": "add"},
    "uni_audio": {},
    "uni_visual": {},
    "weightattention": {},
    "sca": {},
    "shallow_spatialtemporal": {"steps": 16},
}

# A recording whose input is given as event frames, which the authors' code always computes on.
EVENT_FRAMES = "shallow_spatialtemporal as event frames"
NAMES = (*HINTS, EVENT_FRAMES)


class Golden:
    """One recorded file: its arrays, the network of the recording, and names translated to ours."""

    def __init__(self, name: str, arrays: dict[str, np.ndarray], *, events: bool = False) -> None:
        self.name = name
        self.arrays = arrays
        self.events = events
        theirs = {k: torch.from_numpy(v) for k, v in self.under("sd/").items()}
        self.authors: AuthorsState = import_authors_state(theirs, **HINTS.get(name, {}))
        self.method = self.authors.settings.method

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}

    def array(self, key: str) -> np.ndarray | None:
        return self.arrays.get(key)

    def our_module(self, module: str) -> str | None:
        """Return our name; None for a module whose result the authors' network never reads."""
        if never_called(module, method=self.method):
            return None
        name = our_name(module, method=self.method)
        assert name is not None, module
        return name

    def our_key(self, key: str) -> str | None:
        module, tail = key.rsplit(".", 1)
        name = self.our_module(module)
        return None if name is None else f"{name}.{tail}"

    def model(self, *, training: bool) -> nn.Module:
        authors = self.authors
        model = build(
            authors.settings,
            classes=authors.classes,
            audio_channels=authors.audio_channels,
            visual_channels=authors.visual_channels,
        )
        model.load_state_dict(authors.state, strict=True)
        return model.train(training)

    def run(self, model: nn.Module, **inputs: Tensor):
        # The random position bias of sca was recorded with this seed.
        torch.manual_seed(1234)
        return model(*(inputs.get(m, self.input(m)) for m in ("audio", "visual")))

    def input(self, modality: str) -> Tensor | None:
        values = self.array(f"{modality}_i8")
        if values is None:
            return None
        images = torch.from_numpy(values).float() * float(self.arrays["input_scale"])
        # Memory of its own for every time step, as event frames have.
        return images.repeat(self.steps, 1, 1, 1, 1) if self.events else images

    @property
    def steps(self) -> int:
        return self.authors.settings.steps

    @property
    def labels(self) -> Tensor:
        return torch.from_numpy(self.arrays["labels"])


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    for place in PLACES:
        if (path := place / f"{name}.npz").exists():
            with np.load(path) as file:
                return {key: file[key] for key in file.files}
    pytest.skip(f"{name}.npz is neither in tests/golden nor in ../shared/golden")


@cache
def golden(name: str) -> Golden:
    if name == EVENT_FRAMES:
        name = name.split()[0]
        return Golden(name, arrays(name), events=True)
    return Golden(name, arrays(name))


def feeds_batch_norm(key: str) -> bool:
    """Return whether a parameter is a bias before a batch norm.

    The batch norm subtracts the bias again, so the gradient of the bias is rounding noise.
    """
    return key.endswith(("fc1_conv.bias", "fc2_conv.bias"))
