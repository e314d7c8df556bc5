"""Balanced training of a run: its strategy, and inputs that lose a modality."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avsnn.errors import UserError
from avsnn.models.balance import NONE, STRATEGIES, BalanceSettings, Strategy
from avsnn.models.spikformer import AudioVisualSpikformer
from avsnn.pipeline.loading.order import modality_draws
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.training.distributed import ProcessGroup


def make_strategy(
    network: nn.Module, settings: TrainSettings, group: ProcessGroup
) -> Strategy | None:
    """Return the strategy of a training, and let the network give what the strategy reads.

    Args:
        network: the network that is trained.
        settings: the settings of the training.
        group: the processes that train together.

    Returns:
        the strategy; None without one.

    Raises:
        UserError: the network has one stream or no shares of streams, or the strategy and other
            settings contradict each other; or no resume point can hold the strategy's memory.
    """
    balance, method = settings.balance, settings.model.method
    if balance.strategy == NONE and not balance.modality_dropout:
        return None
    if not isinstance(network, AudioVisualSpikformer):
        key = "strategy" if balance.strategy != NONE else "modality_dropout"
        default = getattr(type(balance)(), key)
        raise UserError(
            f"balance.{key} is {getattr(balance, key)}, which needs a network of two streams, and "
            f"model.method {method} has one: choose another method, or balance.{key}={default}."
        )
    if balance.strategy == NONE:
        return None
    kind = STRATEGIES[balance.strategy]
    if not hasattr(network.readout, "shares"):
        raise UserError(
            f"balance.strategy is {balance.strategy}, and the readout of model.method {method} has "
            "no function 'shares' that says what each stream adds to the logits: add the function, "
            f"or choose balance.strategy={NONE}."
        )
    if kind.reads_graph and settings.compute.compile:
        raise UserError(
            f"balance.strategy {balance.strategy} computes several gradients of one forward pass, "
            "and compute.compile frees the pass after the first: choose one of the two."
        )
    network.gives_shares = True
    strategy = kind(
        network,
        balance,
        label_smoothing=settings.loss.label_smoothing,
        mean_over_processes=lambda values: group.sum(values) / group.world_size,
    )
    _require_memory(strategy.memory, balance.strategy)
    return strategy


def _require_memory(memory: Mapping[Any, Any], strategy: str) -> None:
    """Refuse a memory that resume points cannot hold.

    Raises:
        UserError: a name is no text, or a value is no tensor that steps can change in place.
    """
    for name, value in memory.items():
        found = ""
        if not isinstance(value, Tensor):
            found = f"is of the type {type(value).__name__}, and must be a tensor"
        elif not isinstance(name, str):
            found = "must have a text as its name"
        elif value.requires_grad or not value.is_contiguous():
            found = "must be a contiguous tensor without gradient, such as torch.zeros(3)"
        if found:
            raise UserError(f"balance.strategy {strategy}: memory[{name!r}] {found}.")


def balance_words(settings: BalanceSettings) -> str:
    """Return how a training is balanced, as a part of a sentence; empty if not at all."""
    words = "" if settings.strategy == NONE else f", balanced by {settings.strategy}"
    if settings.modality_dropout:
        words += f", modality dropout {settings.modality_dropout:g}"
    return words


def drop_modalities(
    inputs: tuple[Tensor, Tensor], rows: NDArray[np.int64], settings: TrainSettings, *, epoch: int
) -> tuple[Tensor, Tensor]:
    """Return the inputs of a step, in which some clips have lost a modality.

    A clip loses a modality with the probability ``balance.modality_dropout``: half of these clips
    lose the sound, and half lose the frames. The whole input of the modality is then 0; of frames,
    which are normalised, 0 is the mean colour.

    Args:
        inputs: audio ``[B, ...]`` or ``[T, B, ...]``, and frames, as ``network_inputs`` returns
            them.
        rows: row of each clip, ``[B]``, which the random numbers of the clip depend on.
        settings: the settings of the training.
        epoch: number of the epoch, from 0.
    """
    probability = settings.balance.modality_dropout
    if not probability:
        return inputs
    draws = modality_draws(seed=settings.seed, epoch=epoch, rows=rows)
    loses, audio_goes = draws[:, 0] < probability, draws[:, 1] < 0.5
    audio, frames = inputs
    return _blank(audio, loses & audio_goes), _blank(frames, loses & ~audio_goes)


def _blank(images: Tensor, blank: NDArray[np.bool_]) -> Tensor:
    """Return images ``[B, C, H, W]`` or ``[T, B, C, H, W]`` in which some clips are 0."""
    mask = torch.from_numpy(blank)[:, None, None, None].to(images.device)
    # `where` keeps the memory layout of the images, and `masked_fill` does not.
    return torch.where(mask, torch.zeros((), dtype=images.dtype, device=images.device), images)
