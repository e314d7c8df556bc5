"""Networks whose answers are known, and helpers that open a part of a run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from avsnn.models.spikformer import Output
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.evaluation.intervals import Resampling
from avsnn.pipeline.evaluation.robustness.measure import measure_robustness
from avsnn.pipeline.evaluation.robustness.record import Robustness
from avsnn.pipeline.inference.inputs import network_inputs
from avsnn.pipeline.inference.open_part import OpenPart, open_part
from avsnn.pipeline.loading.order import BatchRequest
from avsnn.pipeline.runs.stored_run import StoredRun

CPU = torch.device("cpu")


class Recognises(nn.Module):
    """Names the class of the clip of a part whose picture, or whose sound, is the most alike."""

    def __init__(self, opened: OpenPart, modality: Literal["audio", "visual"]) -> None:
        super().__init__()
        self.modality = modality
        settings = opened.run.config.settings
        (batch,) = opened.loader.read([BatchRequest(opened.rows, None)])
        without_noise = batch._replace(noise=None)
        self.known = self._features(*network_inputs(without_noise, settings))
        self.labels = batch.labels
        self.classes = len(opened.run.config.manifest.classes)

    def _features(self, audio: Tensor, frames: Tensor) -> Tensor:
        images = audio if self.modality == "audio" else frames
        clips_first = images if images.dim() == 4 else images.transpose(0, 1)
        return clips_first.flatten(1)

    def forward(self, audio: Tensor, frames: Tensor) -> Output:
        nearest = torch.cdist(self._features(audio, frames), self.known).argmin(1)
        return Output(nn.functional.one_hot(self.labels[nearest], self.classes).float())


class Draws(nn.Module):
    """Draws its answers, as SCA draws its position bias."""

    def forward(self, audio: Tensor, frames: Tensor) -> Output:
        return Output(torch.randn(frames.shape[-4], 6))


def open_changed(
    folder: Path, *, root: Path | None = None, data: dict[str, Any] | None = None, **changes: Any
) -> Any:
    """Open the test part of a run as if the run had been trained with other settings.

    Args:
        folder: the run folder.
        root: the folder of the data sets; None takes the folder of the training.
        data: changed settings of ``data.augment``.
        changes: changed settings at the top.
    """
    run = StoredRun(folder, root=root)
    settings = run.config.settings
    augment = settings.data.augment.model_copy(update=data or {})
    changes["data"] = settings.data.model_copy(update={"augment": augment})
    settings = settings.model_copy(update=changes)
    run.config = run.config.model_copy(update={"settings": settings})
    return open_part(run, "test", CPU)


def measured(opened: OpenPart, model: nn.Module | None = None) -> Robustness:
    """Return the robustness of a network, by default of the network of the run."""
    opened = opened._replace(model=model or opened.model)
    resampling = Resampling(opened.keys)
    return measure_robustness(
        opened, opened.scores(), resampling, fingerprint="f", progress=NoProgress()
    )


@pytest.fixture
def opened(small_run: Path) -> Iterator[OpenPart]:
    """The test part of a run on the small demo."""
    with open_changed(small_run) as part:
        yield part
