import numpy as np
import pytest
import torch

from avsnn.pipeline.loading.augment_events import (
    crop_and_normalise_events,
    random_event_crops,
    resize_events,
    whole_event_frames,
)
from avsnn.pipeline.runs.train_settings import AugmentSettings

EXTENT = torch.Size((12, 16))


def made_up_frames(count: int) -> torch.Tensor:
    counts = np.random.default_rng(1).integers(0, 256, (count, 3, 2, *EXTENT))
    return torch.from_numpy(counts.astype(np.uint8))


@pytest.mark.parametrize("padding", [0, 4, 20])
def test_a_crop_is_cut_from_the_frame_with_zeros_around_it(padding: int) -> None:
    draws = np.random.default_rng(2).random((9, 2))
    crops = random_event_crops(draws, EXTENT, AugmentSettings(padding=padding))
    frames = made_up_frames(9)
    found = crop_and_normalise_events(frames, crops, channels_last=False)
    around = [(0, 0), (0, 0), (padding, padding), (padding, padding)]
    for clip, (top, left, *_) in enumerate(crops.tolist()):
        padded = np.pad(frames[clip].numpy(), around)
        rows, columns = slice(top + padding, top + padding + 12), slice(left + padding, None)
        # The same offset at every time step.
        cut = padded[:, :, rows, columns][..., :16].astype(np.float32)
        expected = (torch.from_numpy(cut) - 0.1307) / 0.3081
        assert torch.equal(found[:, clip], expected)


def test_every_place_of_a_crop_is_equally_likely_and_none_is_mirrored() -> None:
    places = (np.arange(9) + 0.5) / 9
    draws = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
    crops = random_event_crops(draws, EXTENT, AugmentSettings())
    assert {tuple(crop) for crop in crops[:, :2].tolist()} == {
        (top, left) for top in range(-4, 5) for left in range(-4, 5)
    }
    assert {tuple(crop) for crop in crops[:, 2:].tolist()} == {(12, 16, 0)}
    edges = random_event_crops(np.array([[0.0, 1 - 2**-53]]), EXTENT, AugmentSettings())
    assert edges[0, :2].tolist() == [-4, 4]


def test_evaluation_sees_the_whole_frame() -> None:
    frames = made_up_frames(2)
    found = crop_and_normalise_events(frames, whole_event_frames(2, EXTENT), channels_last=True)
    assert torch.equal(found, (frames.transpose(0, 1).float() - 0.1307) / 0.3081)


def test_a_cochlea_with_more_channels_than_the_network_reads_is_shrunk_with_antialiasing() -> None:
    audio = torch.zeros(1, 2, 1, 25, 112, dtype=torch.uint8)
    audio[0, 1, 0, :, 41] = 200
    found = resize_events(audio, size=28)
    assert found.shape == (2, 1, 1, 28, 28)
    assert not found[0].any()
    # Bilinear resizing without antialiasing would miss a column between the places that it reads.
    assert found[1].sum(-1).mean() == pytest.approx(200 / 4, rel=1e-3)


def test_a_cochlea_of_the_size_of_the_network_stays_as_it_is() -> None:
    audio = torch.arange(2 * 3 * 16, dtype=torch.uint8).view(2, 3, 1, 4, 4)
    assert torch.equal(resize_events(audio, size=4), audio.transpose(0, 1).float())
