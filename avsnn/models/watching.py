"""Look on while layers run, without a change of any result."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from torch import nn

K = TypeVar("K", bound="Hashable")


@contextmanager
def watching(
    layers: Mapping[K, nn.Module], watch: Callable[[K, tuple[Any, ...], Any], None]
) -> Iterator[None]:
    """Call ``watch(name, inputs, output)`` after every call of a layer while the context is open.

    Args:
        layers: the layers by their names.
        watch: gets the name of the layer, the arguments of the call, and the result.
    """

    def hook_of(name: K) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        return lambda _layer, inputs, output: watch(name, inputs, output)

    handles = [layer.register_forward_hook(hook_of(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
