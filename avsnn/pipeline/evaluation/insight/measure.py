"""Measures what happens inside a network while it answers for the clips of one part."""

import numpy as np
import torch
from torch import nn

from avsnn.models.energy import count_parameters
from avsnn.models.fan import Fan, fans
from avsnn.models.neurobench_rules import SynapticCounter, connection_sparsity, footprint
from avsnn.models.rasters import NeuronSpikes, evenly_spread, neuron_spikes
from avsnn.models.spike_counter import SpikeCounter, SpikeRate
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.evaluation.insight.accuracies import (
    contribution,
    number_of_passes,
    step_accuracies,
)
from avsnn.pipeline.evaluation.insight.attention import attention_maps
from avsnn.pipeline.evaluation.insight.chosen_clips import choose_clips, described
from avsnn.pipeline.evaluation.insight.embedding import embed, watch_features
from avsnn.pipeline.evaluation.insight.energy import ENERGY_CLIPS, measure_energy
from avsnn.pipeline.evaluation.insight.record import (
    Insight,
    LayerFan,
    LayerRate,
    NeuroBench,
    Raster,
)
from avsnn.pipeline.evaluation.intervals import Resampling
from avsnn.pipeline.inference.open_part import OpenPart
from avsnn.pipeline.inference.predict import Scores

# A core of Loihi has so many input axons, and as many output axons.
FAN_LIMIT = 4096
# Most clips whose attention is drawn.
ATTENTION_CLIPS = 4
# Most layers, and most neurons of a layer, that the rasters show.
RASTER_LAYERS = 6
RASTER_NEURONS = 64


def measure_insight(
    opened: OpenPart,
    clean: Scores,
    resampling: Resampling,
    *,
    fingerprint: str,
    progress: Progress,
) -> Insight:
    """Measure firing rates, operations, time steps, modalities, features, attention and spikes.

    Args:
        opened: the network and the clips of the part.
        clean: the scores of these clips.
        resampling: draws clips for the intervals.
        fingerprint: the fingerprint of the measurement.
        progress: told of every clip of every pass over the part, and of every clip for the energy.
    """
    model, count = opened.model, len(opened.rows)
    clips = described(opened, clean)
    chosen = choose_clips(clean, most=ATTENTION_CLIPS)
    total = count * (1 + number_of_passes(model)) + min(count, ENERGY_CLIPS)
    progress.start(f"look inside the network on {opened.part}", total, "clips")
    with (
        SpikeCounter(model) as spikes,
        SynapticCounter(model) as operations,
        watch_features(model) as features,
    ):
        opened.scores(progress=progress)
    rates = spikes.rates()
    found_fans, recorded = _look_at_one_clip(opened, clips[chosen[0]].row)
    insight = Insight(
        fingerprint=fingerprint,
        part=opened.part,
        clips=count,
        rates=[LayerRate(layer=name, rate=rate) for name, rate in rates.items()],
        energy=measure_energy(opened, progress),
        neurobench=_neurobench(model, rates, operations, clips=count),
        fan_limit=FAN_LIMIT,
        fans=[
            LayerFan(layer=name, **fan._asdict(), fits=max(fan) <= FAN_LIMIT)
            for name, fan in found_fans.items()
        ],
        steps=step_accuracies(opened, clean, resampling, progress),
        contribution=contribution(opened, clean, progress),
        embedding=embed(torch.cat(features).cpu().numpy(), clips),
        attention=attention_maps(opened, [clips[place] for place in chosen]),
        rasters=[_raster(layer, clips[chosen[0]].key) for layer in recorded],
    )
    progress.stop()
    return insight


def _look_at_one_clip(opened: OpenPart, row: int) -> tuple[dict[str, Fan], list[NeuronSpikes]]:
    """Return the fans of all layers of weights, and the spikes of some layers for one clip."""
    with (
        fans(opened.model) as found,
        neuron_spikes(opened.model, neurons=RASTER_NEURONS) as recorded,
    ):
        opened.scores(rows=np.array([row]))
    return found, [recorded[place] for place in evenly_spread(len(recorded), RASTER_LAYERS)]


def _neurobench(
    model: nn.Module, rates: dict[str, SpikeRate], operations: SynapticCounter, *, clips: int
) -> NeuroBench:
    spikes = sum(rate.spikes for rate in rates.values())
    dense, macs, acs = operations.operations(clips)
    return NeuroBench(
        Footprint=footprint(model),
        ParameterCount=count_parameters(model),
        ConnectionSparsity=connection_sparsity(model),
        ActivationSparsity=1 - spikes / sum(rate.size for rate in rates.values()),
        SynapticOperations={"Effective_MACs": macs, "Effective_ACs": acs, "Dense": dense},
    )


def _raster(recorded: NeuronSpikes, key: str) -> Raster:
    steps, neurons = recorded.spikes.shape
    fired = [(step, neuron) for step, neuron in recorded.spikes.nonzero().tolist()]
    return Raster(layer=recorded.layer, key=key, steps=steps, neurons=neurons, spikes=fired)
