import numpy as np
import torch

from avsnn.pipeline.inference.inputs import network_inputs
from avsnn.pipeline.loading.batch import read_batch
from avsnn.pipeline.loading.order import BatchRequest
from avsnn.pipeline.loading.source import Samples, SampleShapes
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings


class MadeUpSource:
    """Three clips of random numbers."""

    def __init__(self) -> None:
        self.keys = ["a", "b", "c"]
        self.labels = torch.arange(3)
        self.shapes = SampleShapes((3, 40, 50), (1, 24, 24))
        self.note = ""

    def read(self, rows: np.ndarray, frame_positions: np.ndarray) -> Samples:
        generator = torch.Generator().manual_seed(0)
        frames = torch.randint(0, 256, (len(rows), 3, 40, 50), generator=generator)
        audio = torch.rand((len(rows), 1, 24, 24), generator=generator)
        return Samples(frames.byte(), audio, self.labels[torch.from_numpy(rows)])


def test_no_input_of_a_step_needs_a_number_of_the_device() -> None:
    # A tensor on the device `meta` has no numbers: whatever would wait for a GPU fails here.
    settings = build_settings(TrainSettings, [], ["data.augment.noise_snr=5", "data.size=32"])
    batch = read_batch(MadeUpSource(), BatchRequest(np.arange(3), 0), settings)
    on_cpu, on_meta = (network_inputs(batch.to(torch.device(d)), settings) for d in ("cpu", "meta"))
    for expected, found in zip(on_cpu, on_meta, strict=True):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert found.stride() == expected.stride()
