"""The network that an epoch leaves: statistics of its batch norms, and its scores."""

from collections.abc import Iterator
from contextlib import nullcontext, suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.modules.batchnorm import _BatchNorm

from avsnn.pipeline.inference.device import autocast
from avsnn.pipeline.inference.inputs import network_inputs
from avsnn.pipeline.inference.predict import Scores, predict
from avsnn.pipeline.loading.loader import Loader
from avsnn.pipeline.loading.order import BatchRequest, share_of_rank
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.training.distributed import ProcessGroup
from avsnn.pipeline.training.sigterm import SigtermWatch, ToldToEnd
from avsnn.pipeline.training.state import TrainingState


def recalibrate_norms(
    requests: Iterator[BatchRequest],
    state: TrainingState,
    loader: Loader,
    settings: TrainSettings,
    *,
    group: ProcessGroup,
    sigterm: SigtermWatch,
) -> bool:
    """Replace the running statistics of the evaluated network by means over training clips.

    A training step moves the running statistics by a tenth towards the statistics of its batch. So
    after few steps, and for a moving average of the weights, the running statistics belong to other
    weights than the weights that are evaluated. Here the weights stay, and each statistic becomes
    the mean over the batches and the processes: of the mean of a batch, and of its unbiased
    variance. The idea is precise batch norm (Wu and Johnson, "Rethinking 'Batch' in BatchNorm",
    2021, section 3). The variance of a batch leaves out how the means of the batches differ, as
    the moving statistics of a training do.

    The clips are seen as in evaluation: middle frame, centred crop, no mirroring, and noise only
    with ``data.augment.noise_in_evaluation``. So the statistics are those of the inputs that the
    network will get, and they depend on weights, clips, batch size and seed alone.

    Args:
        requests: batches of training clips, the share of this process; augmentation is left out.
        state: the training; of its evaluated network, the running statistics change.
        loader: reads the samples.
        settings: the settings of the training.
        group: the processes that train together.
        sigterm: tells whether SIGTERM has come.

    Returns:
        whether the statistics are whole; False if SIGTERM came.
    """
    # A wait for batches may end at once, but of several processes, none may leave alone.
    with suppress(ToldToEnd), sigterm.at_once() if group.world_size == 1 else nullcontext():
        return _recalibrate(requests, state, loader, settings, group=group, sigterm=sigterm)
    return False


def _recalibrate(
    requests: Iterator[BatchRequest],
    state: TrainingState,
    loader: Loader,
    settings: TrainSettings,
    *,
    group: ProcessGroup,
    sigterm: SigtermWatch,
) -> bool:
    network = state.evaluated
    norms = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    momenta = [norm.momentum for norm in norms]
    # Only batch norms behave as in training: a dropout of a plugin stays off.
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    # Some networks draw numbers also in evaluation (SCA, as published).
    torch.manual_seed(settings.seed)
    unaugmented = (request._replace(epoch=None) for request in requests)
    try:
        with torch.no_grad():
            for number, batch in enumerate(loader.read(unaugmented), 1):
                if group.any(sigterm.has_come):
                    return False
                for norm in norms:
                    # With this momentum, a running statistic is the mean over the batches so far.
                    norm.momentum = 1 / number
                inputs = network_inputs(batch, settings)
                with autocast(settings, state.device):
                    network(*inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    for norm in norms:
        for statistic in (norm.running_mean, norm.running_var):
            assert statistic is not None  # noqa: S101 - narrows the type
            statistic.copy_(group.sum(statistic) / group.world_size)
    return True


def scores_on(
    rows: NDArray[np.int64],
    state: TrainingState,
    loader: Loader,
    settings: TrainSettings,
    *,
    group: ProcessGroup,
    sigterm: SigtermWatch,
) -> Scores | None:
    """Return the scores of the evaluated network on some clips; every process scores a share.

    Args:
        rows: the rows of the clips, ``[N]``.
        state: the training, of which only buffers change.
        loader: reads the samples.
        settings: the settings of the training.
        group: the processes that train together.
        sigterm: tells whether SIGTERM has come.

    Returns:
        the scores on all rows, in every process; None if SIGTERM came.
    """
    share = share_of_rank(rows, rank=group.rank, world_size=group.world_size)
    # Every process has batch norm statistics of its own. The main process saves its network, so
    # every process evaluates that network.
    group.copy_from_main(state.evaluated.buffers())
    scores = None
    with suppress(ToldToEnd), sigterm.at_once():
        scores = predict(
            state.evaluated,
            loader,
            share,
            settings,
            device=state.device,
            batch_size=max(1, settings.batch_size // group.world_size),
        )
    if group.any(scores is None) or scores is None:
        return None
    return Scores(*(group.concatenate(tensor) for tensor in scores))
