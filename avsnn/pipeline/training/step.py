"""One step of the optimizer."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from avsnn.models.losses import training_loss
from avsnn.pipeline.inference.device import autocast
from avsnn.pipeline.inference.inputs import training_inputs
from avsnn.pipeline.loading.order import step_seed
from avsnn.pipeline.loading.source import Batch
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.training.distributed import ProcessGroup
from avsnn.pipeline.training.epoch_totals import LOSSES
from avsnn.pipeline.training.finite_check import FiniteCheck
from avsnn.pipeline.training.state import TrainingState


def take_step(
    batch: Batch,
    *,
    state: TrainingState,
    settings: TrainSettings,
    group: ProcessGroup,
    check: FiniteCheck,
    epoch: int,
    step: int,
) -> dict[str, Tensor]:
    """Take one step of the optimizer.

    Args:
        batch: the samples of this process.
        state: the training, which this step changes.
        settings: the settings of the training.
        group: the processes that train together.
        check: notes whether inputs, loss and gradient are finite.
        epoch: number of the epoch, from 0.
        step: number of the step in the epoch, from 0.

    Returns:
        the loss, its parts and the accuracy of this process, by name.
    """
    network = state.wrapped
    audio, frames = training_inputs(batch, settings, epoch=epoch, device=state.device)
    labels = batch.labels.to(state.device, non_blocking=True)
    # Some networks draw numbers (the position bias of SCA, as published). The seed depends on the
    # step alone, so a resumed run draws the same numbers.
    torch.manual_seed(step_seed(seed=settings.seed, epoch=epoch, step=step))
    state.optimizer.zero_grad(set_to_none=True)
    is_global = settings.distributed.global_alignment and group.world_size > 1
    count = settings.optimizer.accumulate
    chunks = zip(audio.chunk(count), frames.chunk(count), labels.chunk(count), strict=True)
    sums: dict[str, Tensor] = {}
    for number, (audio_part, frames_part, labels_part) in enumerate(chunks, 1):
        with _gradients_shared(network, now=number == count):
            with autocast(settings, state.device):
                output = network(audio_part, frames_part)
            gather = group.gather_with_gradient if is_global else None
            losses = training_loss(output, labels_part, settings.loss, gather=gather)
            (losses.total * (1 / count)).backward()
        correct = (output.logits.argmax(1) == labels_part).float().mean()
        values = dict(zip(LOSSES, losses, strict=True)) | {"accuracy": correct}
        for name, value in values.items():
            addend = value.detach() * (1 / count)
            sums[name] = sums[name] + addend if name in sums else addend
    norm = _gradient_norm(state.model, longest=settings.optimizer.clip_norm)
    check.note(epoch=epoch, step=step, inputs=(audio, frames), loss=sums["loss"], norm=norm)
    state.optimizer.step()
    if state.average is not None:
        state.average.update_parameters(state.model)
    return sums


def _gradient_norm(model: nn.Module, *, longest: float | None) -> Tensor:
    """Return the norm of the gradient over all parameters; scale a longer gradient down."""
    if longest is not None:
        return nn.utils.clip_grad_norm_(model.parameters(), longest)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients)


def _gradients_shared(network: nn.Module, *, now: bool) -> AbstractContextManager[None]:
    """Send gradients to the other processes only in the last chunk of a step."""
    if isinstance(network, DistributedDataParallel) and not now:
        return network.no_sync()
    return nullcontext()
