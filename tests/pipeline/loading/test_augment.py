from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

from avsnn.pipeline.loading.augment import (
    DRAWS,
    MEAN,
    STD,
    add_noise,
    centre_crops,
    crop_and_normalise,
    crop_resize,
    random_crops,
    resize_one_by_one,
    resize_together,
)
from avsnn.pipeline.loading.order import sample_noise
from avsnn.pipeline.runs.train_settings import AugmentSettings
from tests.models.kernels.cases import needs_cuda


def random_frames(count: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator).to(torch.uint8)


boxes = st.tuples(
    st.integers(0, 20), st.integers(0, 20), st.integers(1, 30), st.integers(1, 30), st.booleans()
)


@pytest.mark.parametrize("resize", [resize_one_by_one, resize_together])
@given(chosen=st.lists(boxes, min_size=1, max_size=3), size=st.integers(1, 40))
def test_cropping_a_batch_equals_cropping_and_resizing_each_image(
    resize: Callable[..., torch.Tensor], chosen: list[tuple[int, int, int, int, bool]], size: int
) -> None:
    images = random_frames(len(chosen), 50, 50)
    found = resize(images, torch.tensor(chosen, dtype=torch.int32), size=size)
    for image, (top, left, height, width, flip), result in zip(images, chosen, found, strict=True):
        crop = image[None, :, top : top + height, left : left + width].float()
        expected = interpolate(crop, size=(size, size), mode="bilinear", antialias=True)[0]
        expected = expected.flip(-1) if flip else expected
        # Pixels are rounded to bytes twice: after the rows and after the columns.
        assert (result - expected).abs().max() <= 1.01
        assert torch.equal(result, result.round())


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
@pytest.mark.parametrize(("height", "width", "size"), [(96, 96, 128), (256, 341, 128)])
def test_the_grey_levels_of_a_gpu_are_nearly_all_those_of_a_cpu(
    height: int, width: int, size: int, device: str
) -> None:
    images = random_frames(4, height, width)
    uniform = np.random.default_rng(0).random((4, DRAWS))
    crops = random_crops(uniform, images.shape[-2:], AugmentSettings())
    expected = resize_one_by_one(images, crops, size=size)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        found = resize_together(images.to(device), crops.to(device), size=size).cpu()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    assert (found - expected).abs().max() <= 1
    assert (found != expected).float().mean() < 0.01


def test_crops_equal_those_of_the_published_code() -> None:
    image = random_frames(1, 200, 300)
    top, left, height, width = 20, 33, 150, 201
    found = crop_resize(image, torch.tensor([[top, left, height, width, 0]]), size=128)[0]
    whole = Image.fromarray(image[0].permute(1, 2, 0).numpy())
    corners = (left, top, left + width, top + height)
    expected = whole.crop(corners).resize((128, 128), Image.Resampling.BILINEAR)
    assert np.abs(found.permute(1, 2, 0).numpy() - np.asarray(expected, np.float32)).max() <= 1


draws = st.lists(st.floats(0, 1, exclude_max=True), min_size=DRAWS, max_size=DRAWS).map(
    lambda row: np.array([row])
)


@given(draws, st.integers(16, 300), st.integers(16, 300))
def test_random_crops_stay_inside_the_frame_and_have_the_smallest_area_or_more(
    row: np.ndarray, height: int, width: int
) -> None:
    chosen = AugmentSettings(min_area=0.3)
    crops = random_crops(row, torch.Size((height, width)), chosen)
    ((top, left, high, wide, mirrored),) = crops.tolist()
    assert mirrored == (row[0, -1] < 0.5)
    assert 0 <= top <= top + high <= height
    assert 0 <= left <= left + wide <= width
    # Rounding to whole pixels moves a side by half a pixel at most. The fallback is a square crop.
    assert (high + 1) * (wide + 1) >= 0.3 * height * width or high == wide == min(height, width)


def test_a_whole_frame_at_its_own_size_is_only_normalised() -> None:
    images = random_frames(2, 32, 32)
    whole = AugmentSettings(min_area=1, max_ratio=1, flip=False, test_crop=1)
    expected = (images / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    extent = images.shape[-2:]
    for crops in (
        random_crops(np.zeros((2, DRAWS)), extent, whole),
        centre_crops(2, extent, whole),
    ):
        found = crop_and_normalise(images, crops, size=32)
        assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(256, 341), (360, 256)])
def test_published_evaluation_takes_the_central_128_px_of_a_frame_of_256_px(
    height: int, width: int
) -> None:
    images = random_frames(1, height, width)
    top, left = (height - 128) // 2, (width - 128) // 2
    middle = images[:, :, top : top + 128, left : left + 128]
    crops = centre_crops(1, images.shape[-2:], AugmentSettings())
    everything = torch.tensor([[0, 0, 128, 128, 0]], dtype=torch.int32)
    expected = crop_and_normalise(middle, everything, size=128)
    assert torch.allclose(crop_and_normalise(images, crops, size=128), expected)


@pytest.mark.parametrize("snr", [-6.0, 0.0, 10.0])
def test_noise_has_the_given_signal_to_noise_ratio_in_each_image(snr: float) -> None:
    images = torch.randn(3, 3, 64, 64) * torch.tensor([0.1, 1, 10]).view(3, 1, 1, 1)
    noise = torch.from_numpy(sample_noise(seed=0, epoch=0, rows=np.arange(3), shape=(3, 64, 64)))
    added = add_noise(images, noise, snr=snr) - images
    ratio = 10 * torch.log10(images.square().mean((1, 2, 3)) / added.square().mean((1, 2, 3)))
    assert torch.allclose(ratio, torch.full((3,), snr), atol=0.2)


def test_noise_of_a_sample_does_not_depend_on_its_batch() -> None:
    together = sample_noise(seed=1, epoch=2, rows=np.array([5, 9]), shape=(4,))
    alone = sample_noise(seed=1, epoch=2, rows=np.array([9]), shape=(4,))
    assert np.array_equal(together[1], alone[0])
