"""The ways to compute a step that ``benchmarks/step.py`` compares, and how each way is made."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from avsnn.models import kernels
from avsnn.models.kernels.instruction_set import has_any
from avsnn.models.losses import LossSettings, training_loss
from avsnn.models.zoo import ModelSettings, build
from avsnn.pipeline.inference.device import (
    choose_kernels,
    choose_precision,
    wants_channels_last,
)
from avsnn.pipeline.inference.network import place_network
from avsnn.pipeline.loading.augment_events import MEAN, STD
from avsnn.pipeline.runs.train_settings import OptimizerSettings, TrainSettings
from avsnn.pipeline.training.graphed_step import CudaRecorder, GraphedStep
from avsnn.pipeline.training.optimizer import make_optimizer, set_learning_rate
from benchmarks.neurons import spikingjelly_provider
from benchmarks.published import as_published
from benchmarks.step_floor import products_alone

CLASSES = 6
LEARNING_RATE = 1e-3


class Way(NamedTuple):
    """One way to compute a step.

    Attributes:
        published: compute as the published code does, otherwise as avsnn does.
        spikingjelly: replace the neurons of the published network by those of SpikingJelly.
        compile_mode: ``mode`` of ``torch.compile``; None compiles nothing.
        bf16: compute convolutions and products under autocast to bfloat16.
        graph: record a training step as a CUDA graph.
        products_only: compute only the convolutions and matrix products of a training step.
    """

    published: bool = False
    spikingjelly: bool = False
    compile_mode: str | None = None
    bf16: bool = False
    graph: bool = False
    products_only: bool = False

    @property
    def holds_graph(self) -> bool:
        """Whether the way keeps a CUDA graph, and the memory of the graph, between two steps."""
        return self.graph or self.compile_mode == "max-autotune"

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the way computes; ``avsnn evaluate`` records no graph."""
        trains_only = self.graph or self.products_only
        return ("training",) if trains_only else ("training", "evaluation")


WAYS = {
    "published": Way(published=True),
    "published-compiled": Way(published=True, compile_mode="default"),
    "published-max-autotune": Way(published=True, compile_mode="max-autotune"),
    "spikingjelly": Way(published=True, spikingjelly=True),
    "avsnn": Way(),
    "avsnn-bf16": Way(bf16=True),
    "avsnn-graph": Way(graph=True),
    "avsnn-bf16-graph": Way(bf16=True, graph=True),
    "floor": Way(products_only=True),
}


class Job(NamedTuple):
    """What a process computes: a way, training or evaluation, the sizes, and where.

    Attributes:
        way: name of the way.
        kind: ``training`` or ``evaluation``.
        batch: B.
        steps: T.
        side: height and width of the images in px.
        channels: C.
        device: the device that computes.
        threads: number of threads of a CPU.
        events: the input is a different frame of 2 polarities at every time step, and the network
            has the shallow patch split; otherwise one RGB image, and the deep patch split.
    """

    way: str
    kind: str
    batch: int
    steps: int = 4
    side: int = 128
    channels: int = 256
    device: str = "cpu"
    threads: int = 1
    events: bool = False


def ways_here(device: str) -> tuple[list[str], list[str]]:
    """Return the ways that run on a device, and one line for each other way that says why not."""
    here, lines = [], []
    for name, way in WAYS.items():
        if way.holds_graph and device != "cuda":
            lines.append(f"{name}: left out, because the device is {device}")
            continue
        if way.spikingjelly and find_spec("spikingjelly") is None:
            lines.append(f"{name}: left out, because spikingjelly is not installed")
        elif way.bf16 and device == "cpu" and not has_any("avx512_bf16", "amx_bf16"):
            lines.append(f"{name}: left out, because this CPU has neither AVX512_BF16 nor AMX")
        else:
            here.append(name)
    return here, lines


def graphs_compiled() -> int:
    """Return how many graphs torch.compile has made in this process so far."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def make_step(job: Job) -> tuple[Callable[[], object], str]:
    """Return a function that computes one step, and a remark on how, which may be empty."""
    way, device = WAYS[job.way], torch.device(job.device)
    torch.manual_seed(0)
    split: Any = "shallow" if job.events else "deep"
    settings = ModelSettings(steps=job.steps, channels=job.channels, patch_split=split)
    visual_channels = 2 if job.events else 3
    model = build(settings, classes=CLASSES, visual_channels=visual_channels)
    images = [made_up_input(job, channels).to(device) for channels in (1, visual_channels)]
    labels = torch.randint(0, CLASSES, (job.batch,), device=device)
    remark, training = "", TrainSettings()
    if way.published:
        kernels.choose("torch", device)
        as_published(model, steps=job.steps, spikingjelly=way.spikingjelly)
        remark = f"neurons by {spikingjelly_provider(device)}" if way.spikingjelly else ""
    else:
        choose_precision(training, device)
        choose_kernels("auto", device)
    place_network(model, training, device)
    if wants_channels_last(training, device):
        images = [channels_innermost(image) for image in images]
    audio, visual = images
    if way.products_only:
        return products_alone(model, audio, visual), tf32_remark(device)
    network: Callable[..., Any] = model
    if way.compile_mode:
        network = torch.compile(model, mode=way.compile_mode)
    if job.kind == "evaluation":
        settle_statistics(model, audio, visual)
        return evaluation_step(network, audio, visual, way), remark
    step = training_step(network, optimizer_of(model, way), way)
    return partial(as_graph(step) if way.graph else step, audio, visual, labels), remark


def settle_statistics(model: nn.Module, audio: Tensor, visual: Tensor) -> None:
    """Make the statistics of these images the running statistics, and end the training mode.

    With the running statistics of an untrained network, all layers behind the first layer are
    silent, and a convolution of few spikes is quick.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(audio, visual)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def made_up_input(job: Job, channels: int) -> Tensor:
    """Return images ``[B, C, S, S]``, or event frames ``[T, B, C, S, S]``.

    Event frames are numbers of events, normalised as published; nine of ten pixels have none.
    """
    if not job.events:
        return torch.randn(job.batch, channels, job.side, job.side)
    rates = torch.full((job.steps, job.batch, channels, job.side, job.side), 0.1)
    return (torch.poisson(rates) - MEAN) / STD


def channels_innermost(images: Tensor) -> Tensor:
    """Return images or event frames with the channels innermost in memory."""
    flat = images.view(-1, *images.shape[-3:])
    return flat.contiguous(memory_format=torch.channels_last).view(images.shape)


def evaluation_step(
    network: Callable[..., Any], audio: Tensor, visual: Tensor, way: Way
) -> Callable[[], object]:
    """Return a function that evaluates a batch."""

    def evaluate() -> Tensor:
        _begin_step(way)
        with torch.inference_mode(), _precision(way, audio.device):
            return network(audio, visual).logits  # type: ignore[no-any-return]

    return evaluate


def training_step(
    network: Callable[..., Any], optimizer: torch.optim.Optimizer, way: Way
) -> Callable[..., None]:
    """Return a function of a batch that takes one step of the optimizer."""

    def train(audio: Tensor, visual: Tensor, labels: Tensor) -> None:
        _begin_step(way)
        optimizer.zero_grad(set_to_none=True)
        with _precision(way, audio.device):
            output = network(audio, visual)
        training_loss(output, labels, LossSettings()).total.backward()
        optimizer.step()

    return train


def _begin_step(way: Way) -> None:
    if way.compile_mode == "max-autotune":
        # Tells the CUDA graphs of the compiler that the results of the last step are not read.
        torch.compiler.cudagraph_mark_step_begin()


def _precision(way: Way, device: torch.device):  # type: ignore[no-untyped-def]
    return torch.autocast(device.type, torch.bfloat16) if way.bf16 else nullcontext()


def optimizer_of(model: nn.Module, way: Way) -> torch.optim.Optimizer:
    """Return the optimizer of a way: avsnn has its own AdamW."""
    if way.published:
        return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    optimizer = make_optimizer(model, OptimizerSettings())
    set_learning_rate(optimizer, LEARNING_RATE)
    return optimizer


def as_graph(step: Callable[..., None]) -> Callable[..., None]:
    """Return a step that is recorded as a CUDA graph and replayed, as ``avsnn train`` does."""
    return GraphedStep(step, CudaRecorder())


def tf32_remark(device: torch.device) -> str:
    """Return a remark on whether products in float32 may use TF32, which only GPUs have."""
    if device.type != "cuda":
        return ""
    allowed = {
        "matrix products": torch.backends.cuda.matmul.allow_tf32,
        "convolutions": torch.backends.cudnn.allow_tf32,
    }
    return "TF32: " + ", ".join(
        f"{'on' if on else 'off'} for {name}" for name, on in allowed.items()
    )
