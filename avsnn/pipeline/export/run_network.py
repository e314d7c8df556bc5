"""The trained network of a run, and what a user of the network must know."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from avsnn.models.patch_split import PATCH_SPLITS
from avsnn.models.plain_network import PlainAudioVisual, PlainNetwork, PlainOneModality
from avsnn.models.settings import ModelSettings
from avsnn.models.spikformer import UnimodalSpikformer
from avsnn.pipeline.inference.network import load_network
from avsnn.pipeline.loading import augment, augment_events
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.runs.plugin import REGISTRIES, value_of
from avsnn.pipeline.runs.sample_shapes import InputShapes, SampleShapes, input_shapes
from avsnn.pipeline.runs.stored_run import StoredRun
from avsnn.version import VERSION

# An example input has two clips: a tracer would take the number 1 for a constant.
EXAMPLE_CLIPS = 2

# What an input holds in each time step, by ``data.audio`` and by ``data.frames``.
HEARD = {
    "whole": "",
    "per-step": ", in step t of T the columns floor(t F / T) to floor((t + 1) F / T) of the F "
    "columns, t from 0",
    "growing": ", in step t of T the first floor((t + 1) F / T) of the F columns, t from 0",
}
SEEN = {
    "published": "",
    "per-step": ", in step t of T the frame at (t + 1/2) / T of the stored frames, t from 0",
}


class InputDescription(BaseModel):
    """An input of an exported network.

    Attributes:
        name: ``audio`` or ``visual``.
        shape: the sides; ``batch`` is any number of clips.
        content: what the values are, as a sentence.
        mean: what is subtracted from each channel first; None if nothing is subtracted.
        std: what each channel is divided by afterwards; None if nothing is divided.
        prepared: the settings of ``prepare`` that change the values, by their names in ``--set``;
            empty if no setting changes the values.
    """

    name: str
    shape: list[int | str]
    content: str
    mean: list[float] | None = None
    std: list[float] | None = None
    prepared: dict[str, str | int | float | None] = {}


class NetworkDescription(BaseModel):
    """What a user of an exported network must know; every format carries this as JSON.

    Attributes:
        avsnn: version of avsnn that wrote the file.
        dataset: name of the data set of the training.
        settings: the settings of the network.
        classes: names of the classes, in the order of the logits.
        audio_channels: channels of the audio input.
        visual_channels: channels of the visual input.
        tokens: number N of tokens.
        inputs: the inputs that the network reads.
        output: what the output is, as a sentence.
        seed: seed of the training.
        epoch: epoch of the weights; 0 if nobody knows the epoch.
        notes: what differs from an evaluation by avsnn, as sentences.
    """

    avsnn: str
    dataset: str
    settings: ModelSettings
    classes: list[str]
    audio_channels: int
    visual_channels: int
    tokens: int
    inputs: list[InputDescription]
    output: str
    seed: int
    epoch: int
    notes: list[str]


class RunNetwork(NamedTuple):
    """The trained network of a run.

    Attributes:
        run: the run.
        model: the network on the CPU, in evaluation mode.
        description: what a user of the network must know.
    """

    run: StoredRun
    model: nn.Module
    description: NetworkDescription

    def plain(self) -> PlainNetwork:
        """Return the network in plain torch operations, for a tracer."""
        one = isinstance(self.model, UnimodalSpikformer)
        kind = PlainOneModality if one else PlainAudioVisual
        return kind(self.model, tokens=self.description.tokens, seed=self.description.seed)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return inputs of zeros for two clips."""
        return tuple(
            torch.zeros([EXAMPLE_CLIPS if side == "batch" else int(side) for side in one.shape])
            for one in self.description.inputs
        )

    @property
    def batch_axes(self) -> tuple[int, ...]:
        """The axis of the clips of each input: 0 of images, 1 of images of every time step."""
        return tuple(one.shape.index("batch") for one in self.description.inputs)


def open_network(folder: Path) -> RunNetwork:
    """Open the network of a run with the weights of its best checkpoint; no data are needed.

    Raises:
        UserError: the folder is not a run, has no checkpoint yet, or the checkpoint does not fit.
        RunError: the checkpoint cannot be read.
    """
    run = StoredRun(folder)
    shapes = _sample_shapes(run.config)
    model, epoch = load_network(run.config, shapes, run.checkpoint, run.weights)
    inputs = input_shapes(shapes, run.config.settings)
    return RunNetwork(run, model, _describe(run.config, inputs, model, epoch))


def _sample_shapes(config: RunConfig) -> SampleShapes:
    """Return shapes of samples that fit the network, from the settings alone."""
    size, steps = config.settings.data.size, config.settings.model.steps
    if config.manifest.has_events:
        return SampleShapes(frames=(steps, 2, size, size), audio=(steps, 1, size, size))
    return SampleShapes(frames=(3, size, size), audio=(1, size, size))


def _describe(
    config: RunConfig, shapes: InputShapes, model: nn.Module, epoch: int
) -> NetworkDescription:
    settings, size = config.settings.model, config.settings.data.size
    inputs = _inputs(config, shapes)
    if isinstance(model, UnimodalSpikformer):
        inputs = [one for one in inputs if one.name == settings.method]
    return NetworkDescription(
        avsnn=VERSION,
        dataset=config.dataset,
        settings=settings,
        classes=list(config.manifest.classes),
        audio_channels=shapes.audio[-3],
        visual_channels=shapes.frames[-3],
        tokens=(size // 2 ** len(PATCH_SPLITS[settings.patch_split])) ** 2,
        inputs=inputs,
        output="logits [batch, classes], before softmax",
        seed=config.settings.seed,
        epoch=epoch,
        notes=_notes(config),
    )


def _notes(config: RunConfig) -> list[str]:
    notes = []
    settings = config.settings
    if settings.model.method == "sca" and settings.model.rpb == "published":
        notes.append(
            "The published method sca draws a new random position bias at every call. Files that "
            f"record operations (ONNX, TorchScript) hold one draw instead, with the seed "
            f"{settings.seed} of the run."
        )
    for setting, plugin in config.plugins.items():
        entry = f"The {REGISTRIES[setting].noun} {value_of(settings, setting)}"
        if not setting.startswith("model."):
            notes.append(f"{entry} of {plugin} changed the training; the network does not need it.")
        elif plugin.is_file:
            notes.append(
                f"{entry} is in the file {plugin.name} (SHA-256 {plugin.sha256}) and no part of "
                "avsnn. Import the file before avsnn loads the network; ONNX and TorchScript need "
                "no such file."
            )
        else:
            notes.append(
                f"{entry} is in {plugin} and no part of avsnn. Install the package before avsnn "
                "loads the network; ONNX and TorchScript need no such package."
            )
    if settings.compute.precision != "float32":
        notes.append(
            f"The network was trained and evaluated with {settings.compute.precision}; the "
            "exported network computes in float32."
        )
    if config.converted_from:
        notes.append(
            f"The weights were converted from {config.converted_from}, a checkpoint of the "
            "authors' code."
        )
    return notes


def _inputs(config: RunConfig, shapes: InputShapes) -> list[InputDescription]:
    def sides(shape: tuple[int, ...]) -> list[int | str]:
        return [*shape[:-3], "batch", *shape[-3:]]

    def settings(group: str) -> dict[str, Any]:
        values = config.data.settings.model_dump(mode="json")[group]
        return {f"{group}.{name}": value for name, value in values.items()}

    if config.manifest.has_events:
        return [
            InputDescription(
                name="audio",
                shape=sides(shapes.audio),
                content="numbers of events of a cochlea in each time bin, as frames, resized "
                "bilinearly, and not normalised",
                prepared=settings("events"),
            ),
            InputDescription(
                name="visual",
                shape=sides(shapes.frames),
                content="numbers of events of each polarity in each time bin, as frames",
                mean=[augment_events.MEAN] * shapes.frames[-3],
                std=[augment_events.STD] * shapes.frames[-3],
                prepared=settings("events"),
            ),
        ]
    heard, seen = HEARD[config.settings.data.audio], SEEN[config.settings.data.frames]
    return [
        InputDescription(
            name="audio",
            shape=sides(shapes.audio),
            content=f"audio image as avsnn prepares audio images (log magnitudes){heard}, resized "
            "bilinearly with antialiasing",
            prepared=settings("audio"),
        ),
        InputDescription(
            name="visual",
            shape=sides(shapes.frames),
            content=f"centred square of an RGB frame{seen}, resized bilinearly with "
            "antialiasing, as values from 0 to 1 before mean and std",
            mean=list(augment.MEAN),
            std=list(augment.STD),
        ),
    ]
