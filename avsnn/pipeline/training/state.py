"""What a training changes step by step: network, optimizer, moving average."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from avsnn.models.activation_checkpointing import recompute_blocks
from avsnn.models.batch_norm import BatchNorm
from avsnn.models.kernels import why_reference
from avsnn.pipeline.inference.device import choose_kernels
from avsnn.pipeline.inference.network import build_network
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.training.distributed import ProcessGroup
from avsnn.pipeline.training.optimizer import AdamW, make_optimizer


@dataclass
class TrainingState:
    """The network that is trained, and what belongs to the network.

    Attributes:
        model: the network.
        shared: the network that shares its gradients: ``model`` itself, or ``model`` wrapped for
            several processes.
        wrapped: the network as a step calls the network: ``shared``, or ``shared`` compiled.
        optimizer: the optimizer of the parameters of ``model``.
        average: moving average of the weights; None without ``optimizer.ema_decay``.
        kernels: name of the kernels that compute the neurons.
        device: the device that computes.
    """

    model: nn.Module
    shared: nn.Module
    wrapped: nn.Module
    optimizer: AdamW
    average: AveragedModel | None
    kernels: str
    device: torch.device

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept: the moving average if there is one."""
        return self.model if self.average is None else self.average.module


def build_state(
    config: RunConfig, device: torch.device, group: ProcessGroup, say: Callable[[str], None]
) -> TrainingState:
    """Build the network of a run and everything that trains the network.

    Args:
        config: the configuration of the run.
        device: the device that computes.
        group: the processes that train together.
        say: told if the neurons run on slower kernels than the settings allow.

    Raises:
        UserError: the settings make no network, or ask for kernels that do not run here.
    """
    settings = config.settings
    kernels = choose_kernels(settings.compute.kernels, device)
    if kernels == "torch" != settings.compute.kernels:
        say(f"neurons run on plain torch, which is slower: {why_reference(device)}")
    torch.manual_seed(settings.seed)
    model = build_network(config).to(device)
    if settings.compute.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.synchronised = settings.distributed.sync_batch_norm
    if settings.compute.recompute:
        recompute_blocks(model)
    optimizer = make_optimizer(model, settings.optimizer)
    average = None
    if (decay := settings.optimizer.ema_decay) is not None:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    shared = DistributedDataParallel(model) if group.world_size > 1 else model
    wrapped: nn.Module = shared
    if settings.compute.compile:
        wrapped = torch.compile(shared, dynamic=False)  # type: ignore[assignment]
    return TrainingState(model, shared, wrapped, optimizer, average, kernels, device)
