"""Makes a network of avsnn compute as the published code does: layer by layer, without kernels.

In the benchmarks this network stands for the authors' implementation. The static input is repeated
T times; batch norm, neuron and pooling are separate layers; autograd follows the neurons step by
step, or the neurons are those of SpikingJelly, all steps at once. SpikingJelly passes gradients
through time, which the published code does not; the spikes are the same.
"""

import types

from torch import Tensor, nn
from torch.nn import functional

from avsnn.models.autograd_neuron import autograd_lif
from avsnn.models.batch_norm import BatchNorm
from avsnn.models.neuron import LIF
from avsnn.models.patch_split import PatchSplit
from benchmarks.neurons import spikingjelly_node


def as_published(model: nn.Module, *, steps: int, spikingjelly: bool = False) -> nn.Module:
    """Change in place how ``model`` computes; the result of ``model`` stays the same."""
    for module in list(model.modules()):
        if isinstance(module, LIF):
            if spikingjelly:
                module.node = spikingjelly_node(tau=module.tau, threshold=module.threshold)
            module.forward = types.MethodType(_fire, module)  # type: ignore[method-assign]
            module.pooled = types.MethodType(_fire_and_pool, module)  # type: ignore[method-assign]
        if isinstance(module, PatchSplit):
            module.register_forward_pre_hook(
                lambda _module, args: (_repeat(args[0], steps), args[1])
            )
    return model


def _repeat(images: Tensor, steps: int) -> Tensor:
    """Return T copies of an image; event frames stay as they are."""
    return images if images.dim() == 5 else images.unsqueeze(0).repeat(steps, 1, 1, 1, 1)


def _fire(
    lif: LIF, current: Tensor, steps: int | None = None, norm: BatchNorm | None = None
) -> Tensor:
    if norm is not None:
        flat = current.flatten(0, 1)
        current = nn.modules.batchnorm._BatchNorm.forward(norm, flat).view_as(current)
    if (node := getattr(lif, "node", None)) is not None:
        # A network with copies of its input gives every neuron all time steps.
        assert steps is None  # noqa: S101
        node.reset()
        return node(current)  # type: ignore[no-any-return]
    return autograd_lif(current, steps=steps, neuron=lif.constants, rate=1.0 / lif.tau)


def _fire_and_pool(
    lif: LIF, current: Tensor, steps: int | None = None, norm: BatchNorm | None = None
) -> Tensor:
    spikes = _fire(lif, current, steps, norm)
    pooled = functional.max_pool2d(spikes.flatten(0, 1), 3, 2, 1)
    return pooled.view(*spikes.shape[:2], *pooled.shape[1:])
