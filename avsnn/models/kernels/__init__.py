"""Batch norm, neurons and pooling as one operator, and convolutions of spikes.

``reference.py`` defines in plain torch what all kernels compute. ``cpu.py`` and ``gpu.py`` compute
the same results faster. ``dispatch.py`` chooses the kernels for a tensor, and ``operators.py``
registers the kernels as torch operators, which autograd, autocast and compilers know.
"""

from avsnn.models.kernels.allocator import keep_memory
from avsnn.models.kernels.dispatch import (
    KERNELS,
    choose,
    kernels_for,
    use_reference,
    why_reference,
)

__all__ = ["KERNELS", "choose", "keep_memory", "kernels_for", "use_reference", "why_reference"]
