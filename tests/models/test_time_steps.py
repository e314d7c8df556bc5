"""An input with a time axis whose images are all the same is a static image."""

import pytest
import torch
from torch import nn

from tests.models.networks import awake, clips, each_method, small


@each_method
@pytest.mark.parametrize("steps_of", ["both", "audio", "visual"])
def test_equal_images_in_all_time_steps_give_the_answer_of_a_static_image(
    method: str, steps_of: str
) -> None:
    model: nn.Module = awake(small(method, steps=3, rpb="learned")).eval()
    static = dict(zip(("audio", "visual"), clips(), strict=True))
    moving = {
        name: images.expand(3, *images.shape).contiguous() if steps_of in ("both", name) else images
        for name, images in static.items()
    }
    with torch.no_grad():
        expected, found = (model(**inputs).logits for inputs in (static, moving))
    assert len(set(expected.flatten().tolist())) > 1
    torch.testing.assert_close(found, expected)
