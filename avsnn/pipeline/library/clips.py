"""The clips of a prepared data set as a torch ``Dataset``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from avsnn.datasets_manifest.clips import Part, require_part
from avsnn.pipeline.experiments.presets import load_presets
from avsnn.pipeline.inference.inputs import network_inputs
from avsnn.pipeline.loading.batch import read_batch
from avsnn.pipeline.loading.dataset import open_source
from avsnn.pipeline.loading.order import BatchRequest
from avsnn.pipeline.loading.parts import Parts
from avsnn.pipeline.loading.per_step import require_steps
from avsnn.pipeline.runs.config import RunConfig, make_config
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings

if TYPE_CHECKING:
    from avsnn.pipeline.loading.source import Source


class ClipTensors(NamedTuple):
    """One clip as a network reads the clip.

    Attributes:
        audio: audio image ``[1, S, S]``; or one window of the image for each time step, or the
            event frames of a cochlea, ``[T, 1, S, S]``.
        visual: normalised frame ``[3, S, S]``; or the frame of each time step ``[T, 3, S, S]``; or
            the event frames of a camera ``[T, 2, S, S]``.
        label: number of the class.
    """

    audio: Tensor
    visual: Tensor
    label: int


class Clips(Dataset[ClipTensors]):
    """The clips of one part of a prepared data set; see `open_clips`.

    Torch's ``DataLoader`` takes the data set, also with worker processes. A network takes batches
    with a T axis with the time steps first: ``audio.transpose(0, 1)``.

    Attributes:
        classes: name of each class.
        keys: key of each clip.
        labels: class of each clip.
    """

    def __init__(self, config: RunConfig, part: Part, *, augment: bool) -> None:
        self._config = config
        self._augment = augment
        self._epoch = 0
        self._source: Source | None = open_source(config)
        require_steps(config, self._source)
        self._rows = Parts(config, self._source).rows(part)
        self.classes = tuple(config.manifest.classes)
        self.keys: list[str] = self._source.keys[self._rows].tolist()
        self.labels: list[int] = self._source.labels[self._rows].tolist()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> ClipTensors:
        """Return one clip."""
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[ClipTensors]:
        """Return several clips, which are read together; ``DataLoader`` calls this method."""
        rows = self._rows[np.asarray(numbers, np.int64)]
        if self._source is None:
            self._source = open_source(self._config)
        settings = self._config.settings
        epoch = self._epoch if self._augment else None
        batch = read_batch(self._source, BatchRequest(rows, epoch), settings)
        audio, visual = network_inputs(batch, settings)
        audio, visual = (x.transpose(0, 1) if x.dim() == 5 else x for x in (audio, visual))
        return [
            ClipTensors(*clip) for clip in zip(audio, visual, batch.labels.tolist(), strict=True)
        ]

    def set_epoch(self, epoch: int) -> None:
        """Choose the random numbers of the augmentation: the same epoch gives the same clips.

        Worker processes of a ``DataLoader`` with ``persistent_workers`` keep the first epoch.
        """
        self._epoch = epoch

    def __getstate__(self) -> dict[str, object]:
        # Open files of a cache do not survive in another process.
        return {**self.__dict__, "_source": None}


def open_clips(
    dataset: str,
    part: Part = "train",
    *,
    root: str | Path = "data",
    augment: bool = False,
    settings: Sequence[str] = (),
) -> Clips:
    """Open the clips of one part of a prepared data set.

    Args:
        dataset: name of the data set, such as ``demo``.
        part: ``train``, ``val`` or ``test``.
        root: the folder that holds the data sets.
        augment: give a random frame, crop and flip of each clip, as in training; otherwise the
            middle frame and the centred crop.
        settings: changed settings as for ``avsnn train --set``, such as ``data.size=128`` or
            ``data.split=speaker``.

    Raises:
        UserError: the data set does not exist or is not prepared, has no such part, or a setting is
            wrong.
    """
    require_part(part)
    chosen = build_settings(TrainSettings, load_presets(dataset, ()), settings)
    config = make_config(dataset, chosen, root=Path(root))
    return Clips(config, part, augment=augment)
