"""The logits of a network for the clips of some rows."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.inference.device import autocast
from avsnn.pipeline.inference.inputs import network_inputs
from avsnn.pipeline.loading.batch import Batch
from avsnn.pipeline.loading.loader import Loader
from avsnn.pipeline.loading.order import evaluation_requests
from avsnn.pipeline.runs.train_settings import TrainSettings

# Changes the input of a network, for instance by noise. The arguments are the audio input and the
# visual input as `network_inputs` returns them, and the row of each clip, ``[B]``. The result is
# both inputs, of the same shapes.
Change = Callable[[Tensor, Tensor, NDArray[np.int64]], tuple[Tensor, Tensor]]


class Scores(NamedTuple):
    """Logits ``[N, classes]`` and labels ``[N]`` of the same clips."""

    logits: Tensor
    labels: Tensor

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Probability of every class ``[N, classes]``: the softmax of the logits."""
        shares: NDArray[np.float64] = self.logits.double().softmax(1).numpy()
        return shares

    @property
    def answers(self) -> NDArray[np.int64]:
        """Class with the highest logit of each clip ``[N]``; of equal logits, the lower class."""
        # torch's argmax takes any of several equal logits, numpy's argmax the first.
        return np.asarray(self.logits.numpy().argmax(1))

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Whether the answer to each clip is right ``[N]``."""
        return self.is_in_top(1)

    @property
    def loss(self) -> float:
        """Mean cross-entropy, without label smoothing."""
        return float(cross_entropy(self.logits, self.labels))

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy as a share of clips."""
        return self.top(1)

    def top(self, k: int) -> float:
        """Return the share of clips whose class is among the ``k`` highest logits."""
        return float(self.is_in_top(k).sum()) / len(self.labels)

    def is_in_top(self, k: int) -> NDArray[np.bool_]:
        """Return whether the class of each clip is among the ``k`` highest logits ``[N]``.

        Of equal logits, the one of the lower class counts as higher, as in ``answers``. ``topk``
        takes any of them, and silent networks and bf16 give equal logits.
        """
        own = self.logits.gather(1, self.labels[:, None])
        is_before = torch.arange(self.logits.shape[1]) < self.labels[:, None]
        better = (self.logits > own) | ((self.logits == own) & is_before)
        return np.asarray((better.sum(1) < k).numpy())


def predict(
    model: nn.Module,
    loader: Loader,
    rows: NDArray[np.int64],
    settings: TrainSettings,
    *,
    device: torch.device,
    batch_size: int | None = None,
    change: Change | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Return the logits of a network for some rows, in the order of the rows.

    Args:
        model: the network, on ``device``.
        loader: reads the samples.
        rows: the rows; there may be none.
        settings: the settings of the training; nothing is augmented.
        device: the device that computes, which gets the batches of the loader.
        batch_size: clips of a step; by default those of a training step.
        change: changes the input of the network; None changes nothing.
        progress: told of every clip.
    """
    # Some networks draw numbers also in evaluation (SCA, as published). The seed makes these
    # numbers the same in every evaluation.
    torch.manual_seed(settings.seed)
    model.eval()
    # A process of several may have no rows, so the list starts with an empty tensor.
    logits = [torch.empty(0, device=device)]
    with torch.inference_mode():
        requests = evaluation_requests(rows, batch_size=batch_size or settings.batch_size)
        for batch in loader.read(requests):
            # The logits stay on the device until the end, so the CPU waits for no single batch.
            logits.append(batch_logits(model, batch, settings, device=device, change=change))
            if progress is not None:
                progress.advance(len(batch.rows))
    return Scores(torch.cat(logits).cpu(), loader.source.labels[torch.from_numpy(rows)])


def batch_logits(
    model: nn.Module,
    batch: Batch,
    settings: TrainSettings,
    *,
    device: torch.device,
    change: Change | None = None,
) -> Tensor:
    """Return the logits of a network for one batch, ``[B, classes]`` on the device.

    Args:
        model: the network in evaluation mode, on ``device``.
        batch: the samples, on ``device``.
        settings: the settings of the training.
        device: the device that computes.
        change: changes the input of the network; None changes nothing.
    """
    # Outside `autocast`: resized in bfloat16, frames would miss most grey levels.
    audio, frames = network_inputs(batch, settings)
    if change is not None:
        audio, frames = change(audio, frames, batch.rows)
    with autocast(settings, device):
        logits: Tensor = model(audio, frames).logits
    return logits.float()
