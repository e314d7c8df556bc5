"""Networks as exporters take them: recorded from the authors' code, or small ones that fire."""

import math

import torch
from torch import Tensor

from avsnn.models.settings import ModelSettings
from avsnn.pipeline.export.run_network import InputDescription, NetworkDescription, RunNetwork
from tests.models.golden import Golden
from tests.models.networks import CLASSES, awake, clips, small

SEED = 1234


def recorded(golden: Golden) -> tuple[RunNetwork, list[Tensor]]:
    """Return a recorded network and its recorded inputs."""
    given = {name: golden.input(name) for name in ("audio", "visual")}
    inputs = {name: images for name, images in given.items() if images is not None}
    model = golden.model(training=False)
    return network_of(model, golden.authors.settings, golden.authors.classes, inputs)


def small_network(method: str, **fields) -> tuple[RunNetwork, list[Tensor]]:
    """Return a small network whose layers fire, and inputs for it."""
    model = awake(small(method, **fields)).eval()
    settings = ModelSettings(**{"method": method, "channels": 32, "heads": 4, **fields})
    inputs = dict(zip(("audio", "visual"), clips(), strict=True))
    if method in inputs:
        inputs = {method: inputs[method]}
    return network_of(model, settings, CLASSES, inputs)


def network_of(
    model: torch.nn.Module, settings: ModelSettings, classes: int, inputs: dict[str, Tensor]
) -> tuple[RunNetwork, list[Tensor]]:
    side = next(iter(inputs.values())).shape[-1]
    patch = 16 if settings.patch_split == "deep" else 4
    descriptions = []
    for name, images in inputs.items():
        shape: list[int | str] = list(images.shape)
        shape[-4] = "batch"
        descriptions.append(InputDescription(name=name, shape=shape, content=""))
    about = NetworkDescription(
        avsnn="",
        dataset="",
        settings=settings,
        classes=[str(number) for number in range(classes)],
        audio_channels=1,
        visual_channels=3,
        tokens=math.floor(side / patch) ** 2,
        inputs=descriptions,
        output="",
        seed=SEED,
        epoch=1,
        notes=[],
    )
    return RunNetwork(None, model, about), list(inputs.values())


def logits_of(network: RunNetwork, inputs: list[Tensor]) -> Tensor:
    """Return the logits of our own network, with the kernels that run here."""
    torch.manual_seed(SEED)
    pair = inputs if len(inputs) == 2 else [*inputs, *inputs]
    with torch.no_grad():
        return network.model(*pair).logits
