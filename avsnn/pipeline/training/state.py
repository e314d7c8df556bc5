"""What a training changes step by step: network, optimizer, moving average."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from avsnn.errors import UserError
from avsnn.models.activation_checkpointing import recompute_blocks
from avsnn.models.balance import Strategy
from avsnn.models.batch_norm import BatchNorm
from avsnn.models.kernels import why_reference
from avsnn.models.patch_split import PATCH_SPLITS
from avsnn.pipeline.inference.device import choose_kernels, choose_precision
from avsnn.pipeline.inference.network import build_network, place_network
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.runs.sample_shapes import SampleShapes
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.training.balance import make_strategy
from avsnn.pipeline.training.distributed import ProcessGroup
from avsnn.pipeline.training.optimizer import AdamW, make_optimizer


class MovingAverage(AveragedModel):
    """The moving average of the weights of a network; buffers are copied.

    ``AveragedModel`` reads from the device in every update whether the update is the first one.
    This class reads once, so later updates can be a part of a CUDA graph.

    Args:
        model: the network.
        decay: share of the average that an update keeps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, device=next(model.parameters()).device)
        self._decay = decay
        self._is_new: bool | None = None

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards the weights; the first update copies the weights."""
        if self._is_new is None:
            self._is_new = not self.n_averaged
        own: list[Tensor] = list(self.module.parameters())
        new: list[Tensor] = list(model.parameters())
        torch._foreach_lerp_(own, new, 1.0 if self._is_new else 1 - self._decay)
        for buffer, now in zip(self.module.buffers(), model.buffers(), strict=True):
            buffer.copy_(now)
        self.n_averaged += 1
        self._is_new = False


@dataclass
class TrainingState:
    """The network that is trained, and what belongs to the network.

    Attributes:
        model: the network.
        wrapped: the network as a step calls the network: ``model``, or a wrapper that shares
            gradients with other processes or compiles.
        optimizer: the optimizer of the parameters of ``model``.
        average: moving average of the weights; None without ``optimizer.ema_decay``.
        strategy: the strategy of balanced training; None without ``balance.strategy``.
        kernels: name of the kernels that compute the neurons.
        device: the device that computes.
    """

    model: nn.Module
    wrapped: nn.Module
    optimizer: AdamW
    average: MovingAverage | None
    strategy: Strategy | None
    kernels: str
    device: torch.device

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept: the moving average if there is one."""
        return self.model if self.average is None else self.average.module


def build_state(
    config: RunConfig,
    shapes: SampleShapes,
    device: torch.device,
    group: ProcessGroup,
    say: Callable[[str], None],
) -> TrainingState:
    """Build the network of a run and everything that trains the network.

    Args:
        config: the configuration of the run.
        shapes: shapes of the samples.
        device: the device that computes.
        group: the processes that train together.
        say: told if the neurons run on slower kernels than the settings allow.

    Raises:
        UserError: the settings make no network, ask for kernels that do not run here, give batch
            norm a single value of each channel, or ask for balanced training that the network does
            not allow.
    """
    settings = config.settings
    choose_precision(settings, device)
    kernels = choose_kernels(settings.compute.kernels, device)
    if kernels == "torch" != settings.compute.kernels:
        say(f"neurons run on plain torch, which is slower: {why_reference(device)}")
    elif "model.surrogate" in config.plugins and kernels != "torch":
        say(
            f"neurons run on plain torch, which is slower: the kernels do not know the surrogate "
            f"{settings.model.surrogate!r}"
        )
    torch.manual_seed(settings.seed)
    model = place_network(build_network(config, shapes), settings, device)
    _require_several_values(settings, group)
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.synchronised = settings.distributed.sync_batch_norm
    if settings.compute.recompute:
        recompute_blocks(model)
    strategy = make_strategy(model, settings, group)
    optimizer = make_optimizer(model, settings.optimizer)
    decay = settings.optimizer.ema_decay
    average = None if decay is None else MovingAverage(model, decay)
    wrapped: nn.Module = DistributedDataParallel(model) if group.world_size > 1 else model
    if settings.compute.compile:
        wrapped = torch.compile(wrapped, dynamic=False)  # type: ignore[assignment]
    return TrainingState(model, wrapped, optimizer, average, strategy, kernels, device)


def _require_several_values(settings: TrainSettings, group: ProcessGroup) -> None:
    """Refuse steps in which batch norm would see one value of each channel, which has no variance.

    Raises:
        UserError: a process computes one clip with one time step and one token at a time.
    """
    clips = settings.batch_size // (group.world_size * settings.optimizer.accumulate)
    if settings.distributed.sync_batch_norm:
        clips *= group.world_size
    patch = 2 ** len(PATCH_SPLITS[settings.model.patch_split])
    if clips * settings.model.steps * (settings.data.size // patch) ** 2 == 1:
        raise UserError(
            "batch norm would get one value of each channel, because a step computes one clip at "
            f"a time, with model.steps 1 and data.size {settings.data.size}: raise batch_size, "
            "model.steps or data.size."
        )
