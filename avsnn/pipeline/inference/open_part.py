"""The network of a run, ready to answer for the clips of one part of the run's split."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from avsnn.datasets_manifest.clips import Part
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.inference.device import choose_kernels, choose_precision
from avsnn.pipeline.inference.memory import require_memory_to_evaluate
from avsnn.pipeline.inference.network import load_network, place_network
from avsnn.pipeline.inference.predict import Change, Scores, predict
from avsnn.pipeline.loading.dataset import open_source
from avsnn.pipeline.loading.loader import Loader
from avsnn.pipeline.loading.parts import Parts
from avsnn.pipeline.runs.stored_run import StoredRun


class OpenPart(NamedTuple):
    """A network with its weights, and the clips of a part.

    Attributes:
        run: the run.
        part: the part.
        model: the network, in evaluation mode, on the device.
        epoch: epoch of the weights.
        loader: reads the clips.
        rows: row of each clip of the part, ``[N]``.
        device: the device that computes.
    """

    run: StoredRun
    part: Part
    model: nn.Module
    epoch: int
    loader: Loader
    rows: NDArray[np.int64]
    device: torch.device

    @property
    def keys(self) -> list[str]:
        """Key of each clip of the part, in the order of the rows."""
        return cast("list[str]", self.loader.source.keys[self.rows].tolist())

    def scores(
        self,
        *,
        rows: NDArray[np.int64] | None = None,
        change: Change | None = None,
        progress: Progress | None = None,
    ) -> Scores:
        """Return logits and labels of the clips, in the order of the rows.

        Args:
            rows: the rows; None takes all clips of the part.
            change: changes the input of the network; None changes nothing.
            progress: told of every clip.
        """
        return predict(
            self.model,
            self.loader,
            self.rows if rows is None else rows,
            self.run.config.settings,
            device=self.device,
            change=change,
            progress=progress,
        )


@contextmanager
def open_part(run: StoredRun, part: Part, device: torch.device) -> Iterator[OpenPart]:
    """Open the clips of a part, and the network of a run, while the context is open.

    Args:
        run: the run.
        part: the part of the run's split.
        device: the device that computes.

    Raises:
        UserError: the data are gone or changed, no clip is in the part, the checkpoint does not fit
            the run, or the evaluation needs more memory than there is.
        RunError: the checkpoint cannot be read.
    """
    config = run.config
    choose_precision(config.settings, device)
    choose_kernels("auto", device)
    opener = partial(open_source, config)
    with Loader(opener, config.settings, workers=0, device=device) as loader:
        rows = Parts(config, loader.source).rows(part)
        clips = min(len(rows), config.settings.batch_size)
        shapes = loader.source.shapes
        require_memory_to_evaluate(config, shapes, device, clips=clips)
        model, epoch = load_network(config, shapes, run.checkpoint, run.weights)
        model = place_network(model, config.settings, device)
        yield OpenPart(run, part, model, epoch, loader, rows, device)
