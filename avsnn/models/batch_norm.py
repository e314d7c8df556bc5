"""Batch norm over time steps, which the neurons behind it can take into their own operator."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from avsnn.models.activation_checkpointing import is_recomputing
from avsnn.models.distributed import sum_over_processes
from avsnn.models.kernels import operators
from avsnn.models.token_layout import has_channels_innermost


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm of each channel of ``[B, C, ...]``, over the batch of one or of all processes.

    Saved for backward: the input.

    Attributes:
        synchronised: take the statistics over the batches of all processes that train together
            (``torch.distributed``). The default is off, as published: each process has statistics
            of its own. ``torch.nn.SyncBatchNorm`` runs on GPUs only; this class runs on CPUs too.
    """

    synchronised = False

    def _check_input_dim(self, features: Tensor) -> None:
        """Accept any number of axes behind the channels."""

    @property
    def _sums_over_processes(self) -> bool:
        return self.synchronised and self.training and dist.is_initialized()

    @property
    def can_fuse(self) -> bool:
        """Whether the operator of the neurons can compute this norm in its present mode."""
        if self.weight is None or self.running_mean is None:
            return False
        return not self._sums_over_processes if self.training else not torch.is_grad_enabled()

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return ``scale`` and ``shift``, ``[C]`` each: evaluation is ``x * scale + shift``."""
        assert self.running_mean is not None  # noqa: S101 - `can_fuse` has checked both statistics
        assert self.running_var is not None  # noqa: S101
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    def update_running_statistics(self, mean: Tensor, variance: Tensor, *, count: int) -> None:
        """Move the running statistics towards the statistics of a batch.

        Args:
            mean: mean of each channel, ``[C]``.
            variance: biased variance of each channel, ``[C]``.
            count: number of values of all channels from which the statistics were taken; T copies
                of a static image count T times.

        Raises:
            ValueError: each channel has one value, so its variance is 0 whatever the value is.
        """
        n = count // len(mean)
        if n < 2:
            raise ValueError(
                "In training, batch norm needs more than one value of each channel, and the batch "
                "has one: use more clips, time steps or tokens."
            )
        if is_recomputing():
            return
        with torch.no_grad():
            if self.num_batches_tracked is None:
                return
            if self.running_mean is None or self.running_var is None or self.momentum is None:
                self.num_batches_tracked.add_(1)
                return
            operators.move_statistics(
                self.running_mean,
                self.running_var,
                self.num_batches_tracked,
                mean,
                variance,
                self.momentum,
                n / (n - 1),
            )

    def normalise_steps(self, current: Tensor, copies: int | None) -> Tensor:
        """Normalise ``[T, B, C, ...]``, or ``[B, C, ...]`` that stands for T copies of itself.

        Copies change neither the mean nor the biased variance. Copies do change the unbiased
        variance, which the running variance follows: its factor is ``n T / (n T - 1)`` instead of
        ``n / (n - 1)``.

        Args:
            current: ``[T, B, C, ...]``, or ``[B, C, ...]`` with ``copies``.
            copies: T; None if ``current`` has its own T axis.

        Returns:
            the normalised current, with the shape of ``current``.
        """
        if copies is None:
            return self(current.flatten(0, 1)).view_as(current)  # type: ignore[no-any-return]
        return self._normalise(current, copies)

    def forward(self, features: Tensor) -> Tensor:
        """Normalise ``[B, C, ...]``; with ``synchronised``, B must be the same in all processes."""
        return self._normalise(features, 1)

    def _normalise(self, features: Tensor, copies: int) -> Tensor:
        if not self.training or self.running_mean is None or self.momentum is None:
            return super().forward(features)
        axes = [axis for axis in range(features.dim()) if axis != 1]
        if not self._sums_over_processes:
            wide = features.detach().to(torch.promote_types(features.dtype, torch.float32))
            variance, mean = torch.var_mean(wide, axes, correction=0)
            self.update_running_statistics(mean, variance, count=features.numel() * copies)
            return nn.functional.batch_norm(
                features, None, None, self.weight, self.bias, training=True, eps=self.eps
            )
        shape = [1, -1, *(1 for _ in axes[1:])]
        processes = dist.get_world_size()
        mean = sum_over_processes(features.mean(axes)) / processes
        centred = features - mean.view(shape)
        variance = sum_over_processes(centred.square().mean(axes)) / processes
        self.update_running_statistics(
            mean.detach(), variance.detach(), count=features.numel() * copies * processes
        )
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return torch.addcmul(self.bias.view(shape), centred, scale.view(shape))


class TokenNorm(BatchNorm):
    """Batch norm of each channel of ``[T, B, C, N]``, over T, B and N together.

    Saved for backward: the input.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Normalise ``[T, B, C, N]``; the shape stays the same."""
        frames = features.flatten(0, 1)
        if has_channels_innermost(features):
            # As images of one row, because torch knows no `channels_last` of three axes.
            return super().forward(frames.unsqueeze(2)).squeeze(2).view_as(features)
        return super().forward(frames).view_as(features)
