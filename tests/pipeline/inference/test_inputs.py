import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from avsnn.pipeline.inference.inputs import network_inputs
from avsnn.pipeline.loading.batch import Batch, read_batch
from avsnn.pipeline.loading.order import BatchRequest
from avsnn.pipeline.loading.source import Samples
from avsnn.pipeline.runs.sample_shapes import SampleShapes
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


class MadeUpEvents(MadeUpSource):
    """Three clips of random numbers of events, in three time steps."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes = SampleShapes((3, 2, 28, 28), (3, 1, 8, 8))

    def read(self, rows: np.ndarray, frame_positions: np.ndarray) -> Samples:
        dice = np.random.default_rng(0)
        frames, audio = (
            torch.from_numpy(dice.poisson(1, (len(rows), *shape)).astype(np.uint8))
            for shape in self.shapes
        )
        return Samples(frames, audio, self.labels[torch.from_numpy(rows)])


def event_batch(*words: str, epoch: int | None = 0) -> tuple[Batch, TrainSettings]:
    settings = build_settings(TrainSettings, [], ["data.size=28", *words])
    return read_batch(MadeUpEvents(), BatchRequest(np.arange(3), epoch), settings), settings


@pytest.mark.parametrize("innermost", ["false", "true"])
@pytest.mark.parametrize("source", [MadeUpSource, MadeUpEvents])
def test_no_input_of_a_step_needs_a_number_of_the_device(
    source: type[MadeUpSource], innermost: str
) -> None:
    # A tensor on the device `meta` has no numbers: whatever would wait for a GPU fails here.
    settings = build_settings(
        TrainSettings,
        [],
        ["data.augment.noise_snr=5", "data.size=28", f"compute.channels_last={innermost}"],
    )
    batch = read_batch(source(), BatchRequest(np.arange(3), 0), settings)
    on_cpu, on_meta = (network_inputs(batch.to(torch.device(d)), settings) for d in ("cpu", "meta"))
    for expected, found in zip(on_cpu, on_meta, strict=True):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert found.stride() == expected.stride()


def test_event_frames_reach_the_network_with_time_steps_first_and_normalised_as_published() -> None:
    batch, settings = event_batch(epoch=None)
    audio, frames = network_inputs(batch, settings)
    assert frames.shape == (3, 3, 2, 28, 28)
    for step in range(3):
        expected = (batch.frames[:, step].float() - 0.1307) / 0.3081
        assert torch.equal(frames[step], expected)
        small = batch.audio[:, step].float()
        large = interpolate(small, size=(28, 28), mode="bilinear", align_corners=False)
        assert torch.equal(audio[step], large)


@pytest.mark.parametrize("words", [(), ("data.augment.noise_snr=5",)])
def test_event_frames_lie_in_the_memory_layout_of_the_first_convolution(
    words: tuple[str, ...],
) -> None:
    # `SpikingConv3x3` joins time steps and clips, which must not copy.
    for wanted, form in (
        ("true", torch.channels_last),
        ("false", torch.contiguous_format),
    ):
        batch, settings = event_batch(f"compute.channels_last={wanted}", *words)
        for images in network_inputs(batch, settings):
            joined = images.flatten(0, 1)
            assert joined.data_ptr() == images.data_ptr()
            assert joined.is_contiguous(memory_format=form)


def test_the_memory_layout_changes_no_number_of_event_frames() -> None:
    plain, innermost = (
        network_inputs(*event_batch(f"compute.channels_last={wanted}"))
        for wanted in ("false", "true")
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, innermost, strict=True))


def test_noise_of_event_frames_has_the_power_of_each_whole_clip() -> None:
    batch, settings = event_batch("data.augment.noise_snr=5")
    assert batch.noise is not None
    _, noisy = network_inputs(batch, settings)
    _, clean = network_inputs(batch._replace(noise=None), settings)
    added = (noisy - clean).transpose(0, 1)
    power = clean.square().mean(dim=(0, 2, 3, 4)) / 10**0.5
    for clip in range(3):
        expected = batch.noise[clip] * power[clip].sqrt()
        torch.testing.assert_close(added[clip], expected, rtol=0, atol=1e-5)
