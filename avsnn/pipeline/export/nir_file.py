"""NIR: the parts of a network that neuromorphic tools understand, and what they leave out."""

import io
import json
from typing import Any, NamedTuple

from torch import nn

from avsnn.errors import UserError
from avsnn.models.attention import (
    BiasedSpatialMix,
    OtherQueryAttention,
    SpatioTemporalAttention,
    SpikingAttention,
)
from avsnn.models.fusion import (
    Alignment,
    AttentionResidual,
    CrossModalResidual,
    CurrentIntegration,
    NoFusion,
    SpikingCrossAttention,
    WeightAttention,
)
from avsnn.models.fusion_learned import (
    GatedResidual,
    QKAttention,
    StepAttention,
    TokenMaskAttention,
)
from avsnn.models.readout import ConcatReadout, StreamReadout
from avsnn.models.spikformer import AudioVisualSpikformer, UnimodalSpikformer
from avsnn.pipeline.export.extras import require_package
from avsnn.pipeline.export.nir_graph import GraphBuilder, Signal, as_array
from avsnn.pipeline.export.run_network import NetworkDescription, RunNetwork

TIME = {
    "time_step": "tau is in time steps, so dt is 1: v = v + (x - v) / tau in each step",
    "threshold": "a neuron fires where v >= v_threshold; equality fires",
    "reset": "v starts at 0 for every clip, and is 0 after a spike",
    "image": "an image is the same input at every time step; an input whose shape has T before the "
    "batch has another image at every time step",
    "logits": "class scores are the mean of the output `logits` over all time steps",
}


class NirFiles(NamedTuple):
    """The files of an export to NIR.

    Attributes:
        files: the bytes of each file by its name: the JSON file, then the graph.
        missing: the operations that NIR cannot express, as sentences.
    """

    files: dict[str, bytes]
    missing: list[str]


def nir_files(network: RunNetwork, name: str) -> NirFiles:
    """Return the graph as an HDF5 file, and beside it a JSON file of what the graph leaves out.

    Args:
        network: the network.
        name: name of the graph's file.

    Raises:
        UserError: the package nir is missing, the neurons have a soft reset, or the fusion method
            is unknown here.
    """
    nir = require_package("nir", "an export to NIR")
    settings = network.description.settings
    if settings.reset != "hard":
        raise UserError(
            f"model.reset is {settings.reset}, and the neurons of NIR have a hard reset only; "
            "choose another --format."
        )
    graph = GraphBuilder(nir)
    _build(graph, network.model, network.description)
    sentences = [f"{one.name}: {one.operation}" for one in graph.missing]
    about = {
        "description": network.description.model_dump(mode="json"),
        "complete": not graph.missing,
        "missing": [one._asdict() for one in graph.missing],
        **TIME,
    }
    content = io.BytesIO()
    whole = nir.NIRGraph(graph.nodes, graph.edges, metadata={"avsnn": json.dumps(TIME)})
    nir.write(content, whole)
    beside = (json.dumps(about, indent=1) + "\n").encode()
    return NirFiles({f"{name}.json": beside, name: content.getvalue()}, sentences)


def _build(graph: GraphBuilder, model: nn.Module, about: NetworkDescription) -> None:
    images = {
        one.name: graph.input(one.name, tuple(int(side) for side in one.shape[-3:]))
        for one in about.inputs
    }
    if isinstance(model, UnimodalSpikformer):
        (image,) = images.values()
        x = graph.patch_split("patch", model.patch, image)
        x = x.plus(_attention(graph, "attention", model.attention, x, x))
        x = x.plus(graph.mlp("mlp", model.mlp, x))
        graph.output("logits", graph.head("head", model.head.weight, model.head.bias, x))
        return
    assert isinstance(model, AudioVisualSpikformer)  # noqa: S101 - there is no third kind
    audio = graph.patch_split("audio_patch", model.audio_patch, images["audio"])
    visual = graph.patch_split("visual_patch", model.visual_patch, images["visual"])
    audio, visual, third = _fuse(graph, model.fusion, audio, visual)
    readout: Any = model.readout
    if isinstance(readout, StreamReadout):
        assert third is not None  # noqa: S101 - this readout goes with CMCI
        graph.output("logits", graph.head("head", readout.head.weight, readout.head.bias, third))
        return
    audio = audio.plus(graph.mlp("audio_mlp", model.audio_mlp, audio))
    visual = visual.plus(graph.mlp("visual_mlp", model.visual_mlp, visual))
    weight, bias = readout.head.weight, readout.head.bias
    if isinstance(readout, ConcatReadout):
        parts = weight.chunk(2, dim=1)
        of_audio = graph.head("head.audio", parts[0], bias, audio)
        logits = of_audio.plus(graph.head("head.visual", parts[1], None, visual))
    else:
        logits = graph.head("head", weight, bias, audio.plus(visual))
    graph.output("logits", logits)


def _fuse(
    graph: GraphBuilder, fusion: nn.Module, audio: Signal, visual: Signal
) -> tuple[Signal, Signal, Signal | None]:
    """Add a fusion method, and return the audio, the visual and the third stream."""
    if isinstance(fusion, NoFusion):
        return audio, visual, None
    if isinstance(fusion, CurrentIntegration):
        current = graph.channel_linear("fusion.audio_current", fusion.audio_current, audio).plus(
            graph.channel_linear("fusion.visual_current", fusion.visual_current, visual)
        )
        spikes = graph.neurons("fusion.lif", fusion.lif, current)
        return audio, visual, spikes.plus(graph.mlp("fusion.mlp", fusion.mlp, spikes))
    sides = {"audio": (audio, visual), "visual": (visual, audio)}
    results = {}
    for side, (own, other) in sides.items():
        layer = getattr(fusion, side, None)
        name = f"fusion.{side}"
        if isinstance(fusion, WeightAttention):
            results[side] = graph.outside(
                name,
                "own stream times one weight for each step, computed from the token means of both",
                {"own": own, "other": other},
                own.shape,
            )
        elif isinstance(fusion, SpikingCrossAttention):
            results[side] = _attention(graph, name, layer, own, other)
        elif isinstance(fusion, StepAttention):
            results[side] = graph.outside(
                name,
                "own stream times one weight for each step, a softmax over the steps of both",
                {"audio": audio, "visual": visual},
                own.shape,
            )
        elif isinstance(fusion, CrossModalResidual | GatedResidual | TokenMaskAttention):
            residual = _attention(graph, name, layer, own, other)
            residual = _align(graph, f"{name}_alignment", fusion, residual)
            results[side] = own.plus(_share(graph, name, fusion, residual))
        else:
            raise UserError(
                f"the fusion method {type(fusion).__name__} has no translation to NIR; choose "
                "another --format."
            )
    return results["audio"], results["visual"], None


def _share(graph: GraphBuilder, name: str, fusion: nn.Module, residual: Signal) -> Signal:
    """Add the factor of a residual: one number, or a learned number for each channel."""
    if isinstance(fusion, CrossModalResidual):
        return graph.scaled(f"{name}_alpha", fusion.alpha, residual)
    share = fusion.get_parameter(f"{name.removeprefix('fusion.')}_share.share")
    return graph.scaled(f"{name}_share", as_array(share.unsqueeze(-1)), residual)


def _align(graph: GraphBuilder, name: str, fusion: nn.Module, residual: Signal) -> Signal:
    if not isinstance(fusion, AttentionResidual):
        return residual
    layer = fusion.get_submodule(name.removeprefix("fusion."))
    if not isinstance(layer, Alignment):
        return residual
    current = graph.channel_linear(f"{name}.linear", layer.linear, residual)
    return graph.neurons(
        f"{name}.lif", layer.lif, graph.token_norm(f"{name}.norm", layer.norm, current)
    )


def _attention(
    graph: GraphBuilder, name: str, layer: nn.Module | None, own: Signal, other: Signal
) -> Signal:
    """Add attention with the query from ``own``, and return spikes or real values ``[C, N]``."""
    if isinstance(layer, SpatioTemporalAttention):
        spatial = _attention(graph, f"{name}.spatial", layer.spatial, own, other)
        temporal = _attention(graph, f"{name}.temporal", layer.temporal, own, other)
        return graph.outside(
            name,
            "mean over tokens of the first, times mean over time steps of the second",
            {"spatial": spatial, "temporal": temporal},
            own.shape,
        )
    if isinstance(layer, QKAttention):
        asking, asked = (other, own) if layer.asks_other else (own, other)
        masked = graph.outside(
            f"{name}.mask",
            f"key where neurons fire on the sum of the query's channels ({layer.mask.heads} heads)",
            {
                "query": graph.spiking_convolution(f"{name}.query", layer.query, asking),
                "key": graph.spiking_convolution(f"{name}.key", layer.key, asked),
            },
            own.shape,
        )
        return graph.spiking_convolution(f"{name}.projection", layer.projection, masked)
    assert isinstance(layer, SpikingAttention)  # noqa: S101 - every other attention is one
    if isinstance(layer, OtherQueryAttention):
        own, other = other, own
    streams = {"query": own, "key": other, "value": other}
    spikes = {
        part: graph.spiking_convolution(f"{name}.{part}", getattr(layer, part), stream)
        for part, stream in streams.items()
    }
    operation = f"attention of {layer.heads} heads, (Q K^T) V * 0.25 ({type(layer.mix).__name__})"
    if isinstance(layer.mix, BiasedSpatialMix):
        operation = f"attention of {layer.heads} heads, neurons (Q K^T + position bias) V * 0.25"
    current = graph.outside(f"{name}.mix", operation, spikes, own.shape)
    current = graph.token_norm(f"{name}.norm", layer.norm, current)
    fired = graph.neurons(f"{name}.lif", layer.lif, current)
    return graph.spiking_convolution(f"{name}.projection", layer.projection, fired)
