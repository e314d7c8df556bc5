"""Properties of every network in the registry that hold for any input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avsnn.models.neuron import LIF
from avsnn.models.patch_split import PATCH_SPLITS

from .networks import CLASSES, NEURONS, awake, clips, each_method, small

few = settings(max_examples=10, deadline=None)


@each_method
@few
@given(
    order=st.permutations(range(4)),
    steps=st.integers(1, 8),
    events=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_a_clip_is_classified_alike_anywhere_in_any_batch(method, order, steps, events, seed):
    # In float64 no potential lies so near its threshold that rounding decides about a spike.
    model = awake(small(method, channels=16, steps=steps, rpb="learned")).double().eval()
    generator = torch.Generator().manual_seed(seed)
    frames = (steps, 4) if events else (4,)
    audio, visual = (
        torch.randn(*frames, channels, 32, 32, generator=generator, dtype=torch.float64)
        for channels in (1, 3)
    )
    straight = model(audio, visual).logits
    clip = audio.dim() - 4
    turned = model(*(x.index_select(clip, torch.tensor(order)) for x in (audio, visual))).logits
    alone = [model(*(x.narrow(clip, i, 1) for x in (audio, visual))).logits for i in range(4)]
    torch.testing.assert_close(turned, straight[order])
    torch.testing.assert_close(torch.cat(alone), straight)


sides = st.integers(0, 50) | st.integers(0, 3).map(lambda n: 16 * n)


@pytest.mark.parametrize("split", PATCH_SPLITS)
@each_method
@few
@given(height=sides, width=sides, steps=st.integers(1, 8))
def test_any_sides_work_or_are_refused_in_one_sentence(method, split, height, width, steps):
    model = small(method, channels=16, steps=steps, patch_split=split).eval()
    patch = 2 ** len(PATCH_SPLITS[split])
    tokens = (height // patch) * (width // patch)
    fits = tokens > 0 and height % patch == width % patch == 0
    # The position bias of sca needs a square number of tokens.
    if method == "sca":
        fits = fits and math.isqrt(tokens) ** 2 == tokens
    inputs = torch.randn(2, 1, height, width), torch.randn(2, 3, height, width)
    if fits:
        logits = model(*inputs).logits
        assert logits.shape == (2, CLASSES)
        assert logits.isfinite().all()
    else:
        with pytest.raises(ValueError, match=r"^[A-Z][^\n]*[^.]\.$") as caught:
            model(*inputs)
        assert ". " not in str(caught.value)


@each_method
@pytest.mark.parametrize("choice", [{}, {"detach_membrane": False}, *NEURONS])
@pytest.mark.parametrize("events", [False, True])
def test_spikes_stay_binary_and_gradients_finite_in_bfloat16(method, choice, events):
    model = awake(small(method, channels=16, steps=3, **choice))
    seen = []
    for module in model.modules():
        if isinstance(module, LIF):
            module.register_forward_hook(lambda _m, _i, spikes: seen.append(spikes.detach()))
    inputs = [x.expand(3, *x.shape) if events else x for x in clips(batch=2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(*inputs).logits
    assert len(seen) == sum(isinstance(module, LIF) for module in model.modules())
    assert all(((spikes == 0) | (spikes == 1)).all() for spikes in seen)
    assert any(spikes.dtype == torch.bfloat16 for spikes in seen)
    assert 0 < sum(spikes.float().mean() for spikes in seen) / len(seen) < 1
    logits.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
