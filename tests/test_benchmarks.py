"""The benchmarks compare what they say that they compare, and a failure costs one line."""

import json
import sys

import pytest
import torch

from avsnn.models import kernels
from avsnn.models.attention import SpikingAttention
from avsnn.models.spike_counter import spike_rates
from avsnn.models.zoo import ModelSettings, build
from benchmarks import gpu
from benchmarks.growth import Point, print_row
from benchmarks.published import as_published
from benchmarks.step_floor import CONVOLUTIONS, MATRIX_PRODUCTS, Products
from benchmarks.step_ways import Job, settle_statistics, ways_here
from benchmarks.step_worker import FailedError, Worker

SETTINGS = ModelSettings(steps=2, channels=16)
DRAWS = torch.Generator().manual_seed(0)
INPUTS = tuple(torch.randn(2, channels, 32, 32, generator=DRAWS) for channels in (1, 3))


@pytest.fixture(autouse=True)
def _kernels_as_before():
    yield
    kernels.choose("auto", torch.device("cpu"))


@pytest.mark.parametrize("spikingjelly", [False, True])
def test_the_published_way_gives_the_logits_of_avsnn(spikingjelly):
    if spikingjelly:
        pytest.importorskip("spikingjelly")
    model = build(SETTINGS, classes=3)
    ours = model(*INPUTS).logits
    kernels.choose("torch", torch.device("cpu"))
    theirs = as_published(model, steps=2, spikingjelly=spikingjelly)(*INPUTS).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_layers_of_an_untrained_network_fire_in_the_evaluation_that_is_measured():
    model = build(SETTINGS, classes=3)
    settle_statistics(model, *INPUTS)
    assert not any(module.training for module in model.modules())
    with spike_rates(model) as rates, torch.no_grad():
        model(*INPUTS)
    for stream in ("audio", "visual"):
        layers = [f"{stream}_patch.stages.{stage}.lif" for stage in range(4)]
        assert all(rates[layer] > 0.01 for layer in [*layers, f"{stream}_patch.position.lif"])


def test_the_floor_holds_every_convolution_and_the_products_of_every_attention():
    model = build(SETTINGS, classes=3)
    with kernels.use_reference(), Products() as products:
        model(*INPUTS)
    found = [func for func, _ in products.calls]
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv1d | torch.nn.Conv2d)]
    attentions = [m for m in model.modules() if isinstance(m, SpikingAttention)]
    assert sum(func in CONVOLUTIONS for func in found) >= len(convolutions)
    assert sum(func in MATRIX_PRODUCTS for func in found) >= 2 * len(attentions) > 0


def test_ways_that_need_a_gpu_are_not_tried_on_a_cpu():
    here, _ = ways_here("cpu")
    assert {"published", "published-compiled", "avsnn", "floor"} <= set(here)
    assert not {"avsnn-graph", "published-max-autotune"} & set(here)


def test_a_way_that_cannot_be_computed_says_why_in_one_line():
    worker = Worker(Job("avsnn", "training", batch=1, steps=1, side=20, channels=16))
    with pytest.raises(FailedError, match=r"^ValueError: .* multiples of 16") as caught:
        worker.warm_up()
    assert "\n" not in str(caught.value)


def test_an_exponent_is_the_slope_between_two_rows(capsys):
    print_row("batch", [Point(2, 1.0, 300.0, 100.0), Point(4, 2.0, 600.0, 400.0)])
    assert capsys.readouterr().out == "| batch | 4 | 2 | 1.00 | 600 | 400 | 2.00 |\n"


def test_a_part_that_fails_or_has_no_time_is_recorded(tmp_path):
    python = [sys.executable, "-c"]
    failed = gpu.Part("failed", 60, [[*python, "print('so far'); 1 / 0"], [*python, "print(2)"]])
    late = gpu.Part("late", 0, [[*python, "print(3)"]])
    results = [gpu.run_part(part, tmp_path, float("inf")) for part in (failed, late)]
    gpu.write_summary(tmp_path, results)
    parts = json.loads((tmp_path / "summary.json").read_text())["parts"]
    assert [part["outcome"] for part in parts] == ["code 1", "no time"]
    assert "so far" in parts[0]["output"]
    assert "2" in parts[0]["output"]
    assert "ZeroDivisionError: division by zero" in (tmp_path / "failed.txt").read_text()
