"""Parts of made-up clips, and networks that answer for these clips."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from avsnn.models.zoo import build
from avsnn.pipeline.inference.open_part import OpenPart
from avsnn.pipeline.loading.loader import Loader
from avsnn.pipeline.loading.source import Samples
from avsnn.pipeline.runs.sample_shapes import SampleShapes
from avsnn.pipeline.runs.train_settings import TrainSettings
from tests.models.networks import awake

CLASSES = ["bell", "cat", "dog"]
SIDE = 32
CPU = torch.device("cpu")


class MadeUp:
    """A source of random clips.

    Args:
        clips: number of clips.
        steps: number of event frames of a clip; None gives images.
    """

    note = ""

    def __init__(self, clips: int, steps: int | None) -> None:
        generator = torch.Generator().manual_seed(3)
        keys = [f"clip-{number}" for number in range(clips)]
        self.keys = np.array(keys, np.dtypes.StringDType())
        self.labels = torch.arange(clips) % len(CLASSES)
        shape = (3, SIDE, SIDE) if steps is None else (steps, 2, SIDE, SIDE)
        sound = (1, *shape[1:]) if steps is None else (steps, 1, SIDE, SIDE)
        highest = 256 if steps is None else 3
        self._frames = torch.randint(0, highest, (clips, *shape), generator=generator).byte()
        self._audio = torch.randn(clips, *sound, generator=generator)
        if steps is not None:
            self._audio = self._audio.clamp(0, 2).byte()
        self.shapes = SampleShapes(shape, sound)

    def read(self, rows: np.ndarray, _: np.ndarray) -> Samples:
        """Return the samples of some rows."""
        return Samples(self._frames[rows], self._audio[rows], self.labels[rows])


@contextmanager
def made_up_part(
    method: str = "s-cmrl",
    *,
    clips: int = 12,
    frames: int | None = None,
    batch_size: int = 5,
    **fields: object,
) -> Iterator[OpenPart]:
    """Open made-up clips and a network whose layers all fire.

    Args:
        method: the method.
        clips: number of clips.
        frames: number of event frames of a clip; None gives images.
        batch_size: clips of a batch.
        fields: further settings of the network.
    """
    source = MadeUp(clips, frames)
    settings = TrainSettings.model_validate(
        {
            "model": {"method": method, "channels": 32, "heads": 4, **fields},
            "data": {"size": SIDE, "augment": {"test_crop": 1.0}},
            "batch_size": batch_size,
        }
    )
    torch.manual_seed(0)
    model = build(
        settings.model,
        classes=len(CLASSES),
        audio_channels=source.shapes.audio[-3],
        visual_channels=source.shapes.frames[-3],
        tokens=4,
    )
    for module in awake(model).modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.bias.data.normal_(mean=1.0)
    config = SimpleNamespace(settings=settings, manifest=SimpleNamespace(classes=CLASSES))
    run = SimpleNamespace(config=config, folder=Path("made-up"))
    with Loader(lambda: source, settings, workers=0, device=CPU) as loader:
        yield OpenPart(run, "test", model.eval(), 1, loader, np.arange(clips), CPU)
