"""One step of the optimizer."""

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from avsnn.models.losses import training_loss
from avsnn.pipeline.inference.device import autocast
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.training.distributed import ProcessGroup
from avsnn.pipeline.training.epoch_totals import LOSSES, STREAMS, EpochTotals
from avsnn.pipeline.training.finite_check import FiniteCheck
from avsnn.pipeline.training.state import TrainingState


class TrainingStep:
    """Computes a step of the optimizer, from the input of the network to the moving average.

    A call neither reads a number from the device nor depends on a Python number that changes from
    step to step, so a CUDA graph can record the call.

    Args:
        state: the training, which a step changes.
        settings: the settings of the training.
        group: the processes that train together.
        check: notes whether inputs, loss and gradient are finite.
        totals: gets the loss, its parts, the accuracy and the spikes of this process.
    """

    def __init__(
        self,
        state: TrainingState,
        settings: TrainSettings,
        group: ProcessGroup,
        check: FiniteCheck,
        totals: EpochTotals,
    ) -> None:
        self._state, self._settings = state, settings
        self._check, self._totals = check, totals
        is_global = settings.distributed.global_alignment and group.world_size > 1
        self._gather = group.gather_with_gradient if is_global else None

    def __call__(self, audio: Tensor, frames: Tensor, labels: Tensor) -> None:
        """Take one step of the optimizer.

        Args:
            audio: audio images ``[B, 1, S, S]``, or one for each time step, ``[T, B, 1, S, S]``.
            frames: frames ``[B, C, S, S]``, or one for each time step, ``[T, B, C, S, S]``.
            labels: classes ``[B]``, int64.
        """
        state = self._state
        state.optimizer.zero_grad(set_to_none=True)
        with self._totals.spikes:
            sums = self._gradients(audio, frames, labels)
        if state.strategy is not None:
            state.strategy.change_gradients()
        norm = _gradient_norm(state.model, longest=self._settings.optimizer.clip_norm)
        self._check.note(inputs=(audio, frames), loss=sums["loss"], norm=norm)
        state.optimizer.step()
        if state.average is not None:
            state.average.update_parameters(state.model)
        self._totals.add(sums)

    def _gradients(self, audio: Tensor, frames: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the gradients; return the loss, its parts and the accuracy, by name."""
        settings, network, strategy = self._settings, self._state.wrapped, self._state.strategy
        count = settings.optimizer.accumulate
        # Time steps come before the clips.
        inputs = (tensor.chunk(count, dim=tensor.dim() - 4) for tensor in (audio, frames))
        chunks = zip(*inputs, labels.chunk(count), strict=True)
        sums: dict[str, Tensor] = {}
        for number, (audio_part, frames_part, labels_part) in enumerate(chunks, 1):
            with _gradients_shared(network, now=number == count):
                with autocast(settings, self._state.device):
                    output = network(audio_part, frames_part)
                losses = training_loss(output, labels_part, settings.loss, gather=self._gather)
                if strategy is not None:
                    strategy.note(output, labels_part, weight=1 / count)
                (losses.total * (1 / count)).backward()
            values = dict(zip(LOSSES, losses, strict=True))
            values["accuracy"] = _accuracy(output.logits, labels_part)
            for name, share in zip(STREAMS, output.shares, strict=False):
                values[name] = _accuracy(share, labels_part)
            for name, value in values.items():
                addend = value.detach() * (1 / count)
                sums[name] = sums[name] + addend if name in sums else addend
        return sums


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels).float().mean()


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
