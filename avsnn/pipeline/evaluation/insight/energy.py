"""The operations and the energy of one inference, by the rule of `models/energy.py`."""

import torch
from torch import Tensor

from avsnn.models.energy import AC_PJ, MAC_PJ, Operations, count_operations, count_parameters
from avsnn.models.rasters import evenly_spread
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.evaluation.insight.accuracies import running_for
from avsnn.pipeline.evaluation.insight.record import Energy, LayerEnergy
from avsnn.pipeline.inference.device import autocast
from avsnn.pipeline.inference.inputs import network_inputs
from avsnn.pipeline.inference.open_part import OpenPart
from avsnn.pipeline.loading.order import evaluation_requests

# Counting takes about as long as ten passes over the same clips.
ENERGY_CLIPS = 32
# A layer is binary or not for a whole batch, so batches must be the same whatever the settings say.
_CLIPS_TOGETHER = 8


def measure_energy(opened: OpenPart, progress: Progress) -> Energy:
    """Count the operations of up to 32 clips, which are spread evenly over the part.

    Args:
        opened: the network and the clips.
        progress: told of every clip.
    """
    settings = opened.run.config.settings
    rows = opened.rows[evenly_spread(len(opened.rows), ENERGY_CLIPS).numpy()]
    total: list[LayerEnergy] = []
    # Some networks draw numbers also in evaluation (SCA, as published).
    torch.manual_seed(settings.seed)
    for batch in opened.loader.read(evaluation_requests(rows, batch_size=_CLIPS_TOGETHER)):
        audio, frames = network_inputs(batch, settings)
        with autocast(settings, opened.device):
            counted = count_operations(opened.model, audio, frames)
            if not total:
                total = _layers(counted, _operations_as_ann(opened, audio, frames))
        weight = len(batch.rows) / len(rows)
        total = [
            mean.model_copy(
                update={
                    "macs": mean.macs + layer.macs * weight,
                    "acs": mean.acs + layer.acs * weight,
                }
            )
            for mean, layer in zip(total, counted.layers, strict=True)
        ]
        progress.advance(len(batch.rows))
    return _summed(total, opened, clips=len(rows))


def _operations_as_ann(opened: OpenPart, audio: Tensor, frames: Tensor) -> Operations:
    """Return the operations of one clip for which the network runs as often as an ANN would.

    An ANN reads a static image once, and the inputs of several time steps one by one. The dense
    operations are those of the ANN.
    """
    steps = next((len(x) for x in (audio, frames) if x.dim() == 5), 1)
    first = (x[..., :1, :, :, :] for x in (audio, frames))
    with running_for(opened.model, steps):
        return count_operations(opened.model, *first)


def _layers(counted: Operations, as_ann: Operations) -> list[LayerEnergy]:
    """Return the layers with what depends only on shapes; MACs and ACs are still 0."""
    return [
        LayerEnergy(
            layer=layer.name,
            kind=layer.kind,
            dense=layer.dense,
            ann_macs=ann.dense,
            macs=0,
            acs=0,
        )
        for layer, ann in zip(counted.layers, as_ann.layers, strict=True)
    ]


def _summed(layers: list[LayerEnergy], opened: OpenPart, *, clips: int) -> Energy:
    as_ann = sum(layer.ann_macs for layer in layers)
    macs, acs = sum(layer.macs for layer in layers), sum(layer.acs for layer in layers)
    energy = macs * MAC_PJ + acs * AC_PJ
    of_attention = sum(
        layer.macs * MAC_PJ + layer.acs * AC_PJ for layer in layers if layer.kind == "product"
    )
    return Energy(
        parameters=count_parameters(opened.model),
        clips=clips,
        macs=macs,
        acs=acs,
        dense=sum(layer.dense for layer in layers),
        energy_pj=energy,
        ann_macs=as_ann,
        ann_energy_pj=as_ann * MAC_PJ,
        attention_share=of_attention / energy if energy else 0.0,
        layers=layers,
    )
