"""Thirty training steps, compared with the recorded training of the authors' code."""

import numpy as np
import torch

from avsnn.models.losses import LossSettings, training_loss

from .golden import golden


def run(steps: int) -> np.ndarray:
    recorded = golden("trajectory")
    arrays = recorded.arrays

    def images(name: str) -> torch.Tensor:
        small = torch.from_numpy(arrays[name]).float().div(255)
        large = torch.nn.functional.interpolate(small, scale_factor=2, mode="nearest")
        return (large - 0.5) / 0.25

    audio, visual = images("audio_u8"), images("visual_u8")
    model = recorded.model(training=True)
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=float(arrays["lr"]),
        betas=tuple(arrays["betas"].tolist()),
        eps=float(arrays["eps"]),
        weight_decay=float(arrays["weight_decay"]),
    )
    loss = LossSettings(
        label_smoothing=float(arrays["smoothing"]), temperature=float(arrays["temperature"])
    )
    parts = []
    for batch in arrays["batches"][:steps]:
        output = model(audio[batch], visual[batch])
        losses = training_loss(output, recorded.labels[batch], loss)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        parts.append([float(x.detach()) for x in losses[:3]])
    return np.array(parts)


def test_first_training_steps_have_the_published_losses_and_later_ones_stay_near():
    arrays = golden("trajectory").arrays
    total, cross_entropy, alignment = run(30).T
    assert np.abs(total[:5] - arrays["loss"][:5]).max() < 1e-5
    assert np.abs(cross_entropy[:5] - arrays["loss_ce"][:5]).max() < 1e-5
    assert np.abs(alignment[:5] - arrays["loss_contrastive"][:5]).max() < 1e-5
    # The training of a spiking network is chaotic: the losses of the authors' code differ by up to
    # 0.6 between two precisions or two numbers of threads. Our losses must stay within that range.
    gap = max(
        np.abs(arrays["loss"] - arrays[other]).max() for other in ("loss_float64", "loss_1thread")
    )
    assert np.abs(total - arrays["loss"]).max() < 2 * gap
    assert abs(total[-10:].mean() - arrays["loss"][-10:].mean()) < gap / 2
