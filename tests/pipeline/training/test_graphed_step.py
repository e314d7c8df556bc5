"""The training step as a recording that is replayed without Python.

Where there is no GPU, a tape stands for a CUDA graph: the tape records every operation of torch
with the very tensors that it reads and writes, and computes the operations again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from avsnn.errors import RunError
from avsnn.models.balance import NONE, STRATEGIES
from avsnn.models.kernels import dispatch
from avsnn.pipeline.experiments.presets import load_presets
from avsnn.pipeline.runs.config import make_config
from avsnn.pipeline.runs.sample_shapes import SampleShapes
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from avsnn.pipeline.training.distributed import ProcessGroup
from avsnn.pipeline.training.epoch_totals import EpochTotals
from avsnn.pipeline.training.finite_check import FiniteCheck
from avsnn.pipeline.training.graphed_step import EAGER_STEPS, GraphedStep, graphed
from avsnn.pipeline.training.optimizer import make_optimizer, set_learning_rate
from avsnn.pipeline.training.resume import training_tensors
from avsnn.pipeline.training.state import build_state
from avsnn.pipeline.training.step import TrainingStep
from tests.models.kernels.cases import needs_cuda

TINY = ["model.channels=16", "batch_size=4", "data.size=32", "optimizer.ema_decay=0.9"]
STEPS, BATCH = EAGER_STEPS + 3, 4
IMAGES = SampleShapes((3, 32, 32), (1, 32, 32))
EVENTS = SampleShapes((4, 2, 8, 8), (4, 1, 8, 8))
EVENT_WORDS = ["model.patch_split=shallow", "data.size=8"]


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


class Tape(TorchDispatchMode):
    """Records operations instead of a CUDA graph; like a graph, recording changes no value."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._before: list[tuple[Tensor, Tensor]] = []

    def run(self, work: Callable[[], None]) -> None:
        work()

    def record(self, work: Callable[[], None]) -> None:
        dice = torch.get_rng_state()
        with self:
            work()
        torch.set_rng_state(dice)
        with torch.no_grad():
            for tensor, value in reversed(self._before):
                tensor.copy_(value)

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, outputs in self.calls:
                results = _tensors(func(*args, **kwargs))
                for output, result in zip(outputs, results, strict=True):
                    if output.data_ptr() != result.data_ptr():
                        output.copy_(result)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert func.name() not in ("aten::_local_scalar_dense", "aten::item"), "reads the device"
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._before += [(t, t.detach().clone()) for t in _tensors(value)]
        out = func(*args, **kwargs)
        if func.namespace == "profiler":
            return out
        self.calls.append((func, args, kwargs, _tensors(out)))
        return out


class Training:
    """A tiny training, whose steps are taken one by one or replayed."""

    def __init__(
        self, root: Path, words: list[str], recorder: Any, shapes: SampleShapes = IMAGES
    ) -> None:
        self.shapes = shapes
        settings = build_settings(TrainSettings, load_presets("demo", ["healthy"]), TINY + words)
        config = make_config("demo", settings, root=root)
        device, self.group = torch.device("cuda" if recorder == "cuda" else "cpu"), ProcessGroup()
        self.state = build_state(config, shapes, device, self.group, lambda _: None)
        self.state.model.train()
        for parameters in self.state.optimizer.param_groups:
            # As on a GPU, where a recording would keep a number for ever.
            parameters["lr"] = torch.zeros((), device=device)
        self.check = FiniteCheck(device)
        self.totals = EpochTotals(
            self.state.model, group=self.group, has_streams=self.state.strategy is not None
        )
        self.step: Callable[..., None] = TrainingStep(
            self.state, settings, self.group, self.check, self.totals
        )
        if recorder == "cuda":
            self.step = graphed(self.step, settings, device, processes=1, say=pytest.fail)
        elif recorder is not None:
            self.step = GraphedStep(self.step, recorder)

    def take_steps(self, *, bad: int | None = None) -> dict[str, Tensor]:
        """Take steps whose learning rate and inputs change; return everything they changed."""
        dice = torch.Generator().manual_seed(1)
        for step in range(STEPS):
            set_learning_rate(self.state.optimizer, 1e-3 * (step + 1))
            inputs = [
                torch.randn(*shape[:-3], BATCH, *shape[-3:], generator=dice)
                for shape in (self.shapes.audio, self.shapes.frames)
            ]
            if step == bad:
                inputs[0].view(-1)[0] = float("nan")
            labels = torch.randint(0, 4, (BATCH,), generator=dice)
            torch.manual_seed(step)
            self.check.start_step(epoch=7, step=step)
            self.step(*(tensor.to(self.state.device) for tensor in (*inputs, labels)))
            self.totals.steps += 1
        state = self.state
        return training_tensors(state.model, state.optimizer, state.average) | self.totals.state()


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize(
    ("words", "shapes"),
    [
        ([], IMAGES),
        (["model.method=sca", "optimizer.clip_norm=0.1"], IMAGES),
        (EVENT_WORDS, EVENTS),
        (["balance.strategy=ogm-ge"], IMAGES),
        (["balance.strategy=iemf"], IMAGES),
        (["balance.strategy=mmpareto"], IMAGES),
    ],
    ids=["s-cmrl", "sca draws numbers", "event frames", "ogm-ge", "iemf", "mmpareto"],
)
def test_a_replayed_step_gives_the_bytes_of_a_step(
    small_demo: Path, words: list[str], shapes: SampleShapes
) -> None:
    # Operations in C write to memory that no dispatcher of torch sees.
    words = [*words, "compute.kernels=torch"]
    tape = Tape()
    one_by_one = Training(small_demo, words, None, shapes).take_steps()
    replayed = Training(small_demo, words, tape, shapes).take_steps()
    assert len(tape.calls) > 500
    assert_equal(replayed, one_by_one)
    assert replayed["sum.loss"] > 0
    assert replayed["sizes.audio_mlp.expand.lif"] == STEPS * BATCH * 4 * 64 * 4
    dispatch.choose("auto", torch.device("cpu"))


def test_a_replayed_step_notes_the_number_of_a_bad_step(small_demo: Path) -> None:
    training = Training(small_demo, ["compute.kernels=torch"], Tape())
    training.take_steps(bad=STEPS - 2)
    bad = training.check.first_bad_step(training.group)
    assert bad is not None
    assert (bad.epoch, bad.step, bad.what) == (7, STEPS - 2, "an input")
    dispatch.choose("auto", torch.device("cpu"))


def test_a_step_that_cannot_be_recorded_ends_the_training_with_the_first_reason(
    small_demo: Path,
) -> None:
    class Refusal(Tape):
        def record(self, work: Callable[[], None]) -> None:
            # As torch does: the end of a recording hides why the recording failed.
            try:
                raise RuntimeError("operation not permitted when stream is capturing\nmore")
            finally:
                raise RuntimeError("operation failed due to a previous error during capture")

    training = Training(small_demo, [], Refusal())
    with pytest.raises(RunError, match=r"not permitted when stream is capturing.*cuda_graph=off"):
        training.take_steps()


@pytest.mark.parametrize(
    ("words", "device", "processes", "reason"),
    [
        (["compute.cuda_graph=on"], "cpu", 1, "the device is cpu"),
        (["compute.compile=true"], "cuda", 1, "compute.compile compiles the network"),
        (["compute.recompute=true"], "cuda", 1, "compute.recompute computes blocks twice"),
        (["optimizer.accumulate=2"], "cuda", 1, "optimizer.accumulate cuts a batch into parts"),
        ([], "cuda", 2, "2 processes share their gradients"),
        ([], "cpu", 1, None),
        (["compute.cuda_graph=off"], "cuda", 1, None),
    ],
)
def test_a_step_that_is_not_recorded_stays_as_it_is_and_says_why(
    words: list[str], device: str, processes: int, reason: str | None
) -> None:
    said: list[str] = []
    settings = build_settings(TrainSettings, {}, words)
    step = graphed(print, settings, torch.device(device), processes=processes, say=said.append)
    assert step is print
    assert said == (
        [] if reason is None else [f"the training step runs without a CUDA graph: {reason}"]
    )


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("method", ["s-cmrl", "sca"])
@pytest.mark.parametrize(
    ("more", "shapes"), [([], IMAGES), (EVENT_WORDS, EVENTS)], ids=["images", "event frames"]
)
def test_a_cuda_graph_gives_the_bytes_of_steps(
    small_demo: Path, precision: str, method: str, more: list[str], shapes: SampleShapes
) -> None:
    words = [f"compute.precision={precision}", f"model.method={method}", *more]
    eager = Training(small_demo, [*words, "compute.cuda_graph=off"], "cuda", shapes).take_steps()
    assert_equal(Training(small_demo, words, "cuda", shapes).take_steps(), eager)


@needs_cuda
@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != NONE])
def test_a_cuda_graph_gives_the_bytes_of_balanced_steps(small_demo: Path, strategy: str) -> None:
    words = [f"balance.strategy={strategy}"]
    eager = Training(small_demo, [*words, "compute.cuda_graph=off"], "cuda").take_steps()
    assert_equal(Training(small_demo, words, "cuda").take_steps(), eager)


@needs_cuda
def test_the_learning_rate_of_a_graph_is_a_tensor_on_the_device() -> None:
    model = torch.nn.Linear(2, 2).cuda()
    optimizer = make_optimizer(model, TrainSettings().optimizer)
    before = optimizer.param_groups[0]["lr"]
    set_learning_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] is before
    assert float(before) == 0.25
