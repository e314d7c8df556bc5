"""The whole measurement on made-up clips, for every method."""

import pytest
import torch

from avsnn.models.energy import count_operations
from avsnn.models.spike_counter import spike_rates
from avsnn.models.zoo import METHODS
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.evaluation.insight.measure import measure_insight
from avsnn.pipeline.evaluation.insight.record import Insight
from avsnn.pipeline.evaluation.intervals import Resampling
from avsnn.pipeline.inference.open_part import OpenPart
from tests.pipeline.evaluation.insight.parts import made_up_part


class Counting(NoProgress):
    """A progress display that adds up what it is told."""

    def __init__(self) -> None:
        self.total = self.done = 0

    def start(self, title: str, total: int, unit: str) -> None:
        self.total += total

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count


def insight_of(opened: OpenPart, progress: NoProgress | None = None) -> Insight:
    resampling = Resampling(opened.keys)
    return measure_insight(
        opened,
        opened.scores(),
        resampling,
        fingerprint="f",
        progress=NoProgress() if progress is None else progress,
    )


@pytest.mark.parametrize("frames", [None, 4], ids=["images", "events"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_measured_and_left_as_it_was(method: str, frames: int | None) -> None:
    with made_up_part(method, frames=frames) as opened:
        before, progress = opened.scores(), Counting()
        insight = insight_of(opened, progress)
        assert torch.equal(opened.scores().logits, before.logits)
        assert opened.model.steps == 4
        modules = list(opened.model.modules())
        with spike_rates(opened.model) as rates:
            opened.scores()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    assert progress.done == progress.total
    assert Insight.model_validate_json(insight.model_dump_json()) == insight
    assert {rate.layer: rate.rate for rate in insight.rates} == rates
    spikes, size = (sum(getattr(r, n) for r in rates.values()) for n in ("spikes", "size"))
    assert insight.neurobench.ActivationSparsity == 1 - spikes / size
    assert insight.neurobench.ParameterCount == insight.energy.parameters
    assert [step.steps for step in insight.steps] == [1, 2, 3, 4]
    assert insight.steps[-1].top1.value == before.accuracy
    assert (insight.contribution is None) == (method in ("audio", "visual"))
    assert len(insight.attention) == (4 if method in ("s-cmrl", "gated", "sca") else 0)
    assert {clip.key for clip in insight.embedding.clips} == set(opened.keys)
    assert len(insight.rasters) == min(6, len(rates))
    assert {raster.layer for raster in insight.rasters} <= set(rates)
    assert any(raster.spikes for raster in insight.rasters)
    assert all(fan.fits for fan in insight.fans)


@pytest.mark.parametrize("clips", [1, 2])
def test_very_few_clips_are_enough(clips: int) -> None:
    with made_up_part(clips=clips) as opened:
        insight = insight_of(opened)
    assert insight.embedding.method == "PCA"
    assert len(insight.embedding.clips) == len(insight.attention) == insight.energy.clips == clips


def test_the_energy_is_that_of_the_counted_operations() -> None:
    with made_up_part(clips=8, batch_size=3) as opened:
        energy = insight_of(opened).energy
        (inputs,) = all_inputs(opened)
        counted = count_operations(opened.model, *inputs)
        opened.model.steps = 1
        one_step = count_operations(opened.model, *inputs)
    assert (energy.macs, energy.acs, energy.dense) == (counted.macs, counted.acs, counted.dense)
    assert energy.energy_pj == pytest.approx(counted.energy())
    assert energy.ann_macs == one_step.dense < counted.dense
    assert [(layer.layer, layer.ann_macs) for layer in energy.layers] == [
        (layer.name, layer.dense) for layer in one_step.layers
    ]
    assert energy.ann_energy_pj == pytest.approx(one_step.dense_energy())
    products = [layer for layer in counted.layers if layer.kind == "product"]
    of_attention = sum(4.6 * layer.macs + 0.9 * layer.acs for layer in products)
    assert energy.attention_share == pytest.approx(of_attention / counted.energy())
    assert of_attention > 0


def test_an_artificial_network_reads_every_event_frame() -> None:
    with made_up_part(clips=2, frames=4) as opened:
        energy = insight_of(opened).energy
    assert energy.ann_macs == energy.dense


def all_inputs(opened: OpenPart) -> list[tuple[torch.Tensor, torch.Tensor]]:
    from avsnn.pipeline.inference.inputs import network_inputs
    from avsnn.pipeline.loading.order import evaluation_requests

    requests = evaluation_requests(opened.rows, batch_size=len(opened.rows))
    return [network_inputs(b, opened.run.config.settings) for b in opened.loader.read(requests)]


def test_neither_the_size_of_a_batch_nor_a_second_try_changes_a_figure() -> None:
    found = []
    for batch_size in (4, 40, 40):
        with made_up_part(clips=40, batch_size=batch_size) as opened:
            found.append(insight_of(opened))
    small, large, again = found
    assert large == again
    assert large.embedding.method == "t-SNE"
    # t-SNE makes differences of rounding large.
    same = {"embedding": large.embedding}
    assert small.model_copy(update=same) == large
