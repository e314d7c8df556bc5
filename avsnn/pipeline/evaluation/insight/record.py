"""The content of ``report/PART-insight.json``."""

from typing import Literal

from pydantic import Field

from avsnn.datasets_manifest.clips import Part
from avsnn.pipeline.evaluation.intervals import Share
from avsnn.pydantic_base import StrictModel


class LayerRate(StrictModel):
    """The firing rate of one layer on the evaluated part.

    Attributes:
        layer: name of the layer.
        rate: spikes per neuron and time step.
    """

    layer: str
    rate: float


class LayerEnergy(StrictModel):
    """The operations of one layer for one clip; see ``models/energy.py``.

    Attributes:
        layer: name of the layer.
        kind: ``convolution``, ``linear`` or ``product`` (of attention).
        dense: operations of all time steps if every operation were a MAC.
        ann_macs: operations of the same layer in an ANN; see `Energy.ann_macs`.
        macs: multiply-accumulates.
        acs: accumulates.
    """

    layer: str
    kind: str
    dense: float
    ann_macs: float
    macs: float
    acs: float


class Energy(StrictModel):
    """The operations and the energy of one inference; all figures are means over clips.

    Attributes:
        parameters: number of parameters.
        clips: number of clips whose operations were counted.
        macs: multiply-accumulates.
        acs: accumulates.
        dense: operations of all time steps if every operation were a MAC.
        energy_pj: energy of the arithmetic in pJ, 45 nm, 32 bits.
        ann_macs: operations of the same network as an ANN, all of them MACs. An ANN reads a static
            image once and not T times, so its operations are those of one time step; of event data,
            an ANN reads all T frames.
        ann_energy_pj: energy of the same network as an ANN, in pJ.
        attention_share: share of attention products in ``energy_pj``, from 0 to 1.
        layers: the layers in the order in which the layers run.
    """

    parameters: int
    clips: int
    macs: float
    acs: float
    dense: float
    energy_pj: float
    ann_macs: float
    ann_energy_pj: float
    attention_share: float
    layers: list[LayerEnergy]


class NeuroBench(StrictModel):
    """The static and workload metrics of NeuroBench 2.3, under the keys of NeuroBench."""

    Footprint: float
    ParameterCount: int
    ConnectionSparsity: float
    ActivationSparsity: float
    SynapticOperations: dict[Literal["Effective_MACs", "Effective_ACs", "Dense"], float]


class LayerFan(StrictModel):
    """Fan-in and fan-out of one layer of weights.

    Attributes:
        layer: name of the layer.
        fan_in: number of inputs of each neuron.
        fan_out: largest number of neurons that one input reaches.
        fits: whether both are within the limit.
    """

    layer: str
    fan_in: int
    fan_out: int
    fits: bool


class StepAccuracy(StrictModel):
    """The accuracy if the network ends after some time steps.

    Attributes:
        steps: number t of time steps.
        top1: top-1 accuracy, with its interval.
    """

    steps: int
    top1: Share


class Contribution(StrictModel):
    """What each modality adds to the accuracy: its Shapley value, in accuracy from 0 to 1.

    Attributes:
        neither: accuracy without both modalities.
        audio: the part of audio.
        visual: the part of vision.
    """

    neither: float
    audio: float
    visual: float


class EmbeddedClip(StrictModel):
    """One clip in the plane of fused features.

    Attributes:
        key: key of the clip.
        truth: class of the clip.
        answer: class that the network names.
        x: first coordinate.
        y: second coordinate.
    """

    key: str
    truth: str
    answer: str
    x: float
    y: float


class Embedding(StrictModel):
    """The fused features of clips in a plane.

    Attributes:
        method: how the plane was found.
        clips: the clips.
    """

    method: Literal["t-SNE", "PCA"]
    clips: list[EmbeddedClip] = Field(min_length=1)


class AttentionMap(StrictModel):
    """The cross-modal attention of one clip, as a mean over heads, time steps and queries.

    Attributes:
        key: key of the clip.
        truth: class of the clip.
        answer: class that the network names.
        frame: how much attention each token of the frame gets, ``[rows][columns]``, the sum is 1;
            all zeros if the attention is silent.
        spectrogram: the same for the tokens of the audio image.
    """

    key: str
    truth: str
    answer: str
    frame: list[list[float]]
    spectrogram: list[list[float]]


class Raster(StrictModel):
    """The spikes of some neurons of one layer for one clip.

    Attributes:
        layer: name of the layer.
        key: key of the clip.
        steps: number T of time steps.
        neurons: number of neurons that are drawn, spread evenly over the layer.
        spikes: time step and neuron of each spike, both from 0.
    """

    layer: str
    key: str
    steps: int
    neurons: int
    spikes: list[tuple[int, int]]


class Insight(StrictModel):
    """The content of ``report/PART-insight.json``.

    Attributes:
        fingerprint: changes with the checkpoint, the data, the part and the version of the code.
        part: the part that was measured.
        clips: number of clips.
        rates: firing rate of every layer, in the order of the network.
        energy: operations and energy by the rule of avsnn.
        neurobench: the same by the rules of NeuroBench.
        fan_limit: limit of fan-in and fan-out that `LayerFan.fits` compares with.
        fans: fan-in and fan-out of every layer of weights.
        steps: the accuracy after 1 to T time steps, at most 16 of these numbers.
        contribution: what each modality adds; None for a network of one modality.
        embedding: the fused features in a plane.
        attention: cross-modal attention of chosen clips; empty without cross-modal attention.
        rasters: the spikes of chosen layers for one clip.
    """

    fingerprint: str
    part: Part
    clips: int
    rates: list[LayerRate] = Field(min_length=1)
    energy: Energy
    neurobench: NeuroBench
    fan_limit: int
    fans: list[LayerFan]
    steps: list[StepAccuracy] = Field(min_length=1)
    contribution: Contribution | None
    embedding: Embedding
    attention: list[AttentionMap]
    rasters: list[Raster]
