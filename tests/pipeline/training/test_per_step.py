"""A run whose network sees a frame and hears a window of its own in each time step, end to end."""

import io
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

import avsnn
from avsnn.errors import UserError
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.evaluation.evaluate import evaluate
from avsnn.pipeline.evaluation.robustness.conditions import Clean, Missing, Noisy
from avsnn.pipeline.evaluation.robustness.inputs import read_inputs
from avsnn.pipeline.evaluation.robustness.noisy_sound import open_sounds
from avsnn.pipeline.export.onnx_file import onnx_file
from avsnn.pipeline.export.run_network import open_network
from avsnn.pipeline.export.torchscript_file import torchscript_file
from avsnn.pipeline.inference import memory
from avsnn.pipeline.inference.memory import require_memory
from avsnn.pipeline.inference.open_part import open_part
from avsnn.pipeline.loading.per_step import audio_inputs
from avsnn.pipeline.prediction.predict import predict_files
from avsnn.pipeline.runs.checkpoint import read_checkpoint
from avsnn.pipeline.runs.config import load_config, make_config
from avsnn.pipeline.runs.sample_shapes import SampleShapes, input_shapes
from avsnn.pipeline.runs.stored_run import StoredRun
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from avsnn.pipeline.training.options import RunOptions
from avsnn.pipeline.training.train import train
from tests.conftest import Command
from tests.event_data import write_event_data

CPU = torch.device("cpu")
TINY = ("model.channels=16", "model.steps=3", "data.size=32", "batch_size=8", "epochs=1")
PER_STEP = (*TINY, "data.frames=per-step", "data.audio=per-step")


def settings_of(*words: str) -> TrainSettings:
    return build_settings(TrainSettings, (), words)


def run(
    root: Path,
    folder: Path,
    *words: str,
    said: list[str] | None = None,
    resume: bool = False,
    workers: int = 0,
    shards: bool = False,
) -> Path:
    options = RunOptions(CPU, resume=resume, workers=workers, shards=shards, save_every=1)
    config = make_config("demo", settings_of(*words), root=root)
    say = (said if said is not None else []).append
    train(config, folder=folder, options=options, progress=NoProgress(), say=say)
    return folder


def weights(folder: Path) -> dict[str, Tensor]:
    return read_checkpoint(folder / "checkpoints" / "last.safetensors").tensors


@pytest.fixture(scope="module")
def per_step_run(small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on the small demo with frames and windows of each time step."""
    return run(small_demo, tmp_path_factory.mktemp("per-step") / "run", *PER_STEP)


@pytest.mark.parametrize(
    ("shards", "workers"), [(True, 0), (False, 2)], ids=["shards", "two workers"]
)
def test_shards_and_workers_train_the_same_network(
    small_demo: Path, per_step_run: Path, tmp_path: Path, shards: bool, workers: int
) -> None:
    run(small_demo, tmp_path / "r", *PER_STEP, shards=shards, workers=workers)
    one, other = weights(per_step_run), weights(tmp_path / "r")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_that_was_cut_goes_on_to_the_same_weights(
    small_demo: Path, per_step_run: Path, tmp_path: Path
) -> None:
    run(small_demo, tmp_path / "cut", *PER_STEP)
    (tmp_path / "cut" / "metrics.jsonl").unlink()
    for path in (tmp_path / "cut" / "checkpoints").glob("resume-00001-*"):
        path.unlink()
    run(small_demo, tmp_path / "cut", *PER_STEP, resume=True)
    whole, cut = weights(per_step_run), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.parametrize(
    "words",
    [
        ("data.frames=per-step",),
        ("data.audio=growing", "model.method=audio"),
        ("data.audio=per-step", "compute.precision=bf16", "compute.channels_last=true"),
        ("data.frames=per-step", "optimizer.accumulate=2", "compute.recompute=true"),
        ("data.frames=per-step", "data.augment.noise_snr=10", "optimizer.recalibrate_norms=true"),
        ("data.frames=per-step", "balance.modality_dropout=0.5", "balance.strategy=ogm-ge"),
    ],
    ids=" ".join,
)
def test_each_setting_trains_alone_and_with_other_settings(
    small_demo: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    folder = run(small_demo, tmp_path / "r", *TINY, *words)
    found = evaluate(folder, part="val", root=None, device=CPU, progress=NoProgress())
    assert np.isfinite(found.evaluation.loss)


def test_the_defaults_leave_the_fingerprint_as_it_was(small_demo: Path) -> None:
    plain, same, frames, audio = (
        make_config("demo", settings_of(*words), root=small_demo).fingerprint
        for words in (
            (),
            ("data.frames=published", "data.audio=whole"),
            ("data.frames=per-step",),
            ("data.audio=growing",),
        )
    )
    assert plain == same
    assert len({plain, frames, audio}) == 3


def test_clips_without_frames_enough_are_told_once(small_demo: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run(small_demo, tmp_path / "r", *PER_STEP, "model.steps=4", said=said)
    (sentence,) = [one for one in said if "fewer stored frames" in one]
    assert sentence.startswith("72 of 72 clips")
    advice = f"avsnn prepare demo --root {small_demo} --limit 72 --set extract.frames=4"
    assert advice in sentence
    heard: list[str] = []
    run(small_demo, tmp_path / "h", *PER_STEP, "model.method=audio", said=heard)
    assert not [one for one in heard if "fewer stored frames" in one]


def test_an_evaluation_measures_robustness_and_what_happens_inside(per_step_run: Path) -> None:
    found = evaluate(
        per_step_run,
        part="test",
        root=None,
        device=CPU,
        progress=NoProgress(),
        robustness=True,
        insight=True,
    )
    assert found.robustness is not None
    assert found.insight is not None
    assert {curve.target for curve in found.robustness.curves} == {"audio", "visual", "both"}
    assert [one.steps for one in found.insight.steps] == [1, 2, 3]
    assert found.insight.steps[-1].top1.value == found.evaluation.top1
    first = next(one for one in found.insight.energy.layers if "visual_patch.stages.0" in one.layer)
    # An ANN reads the three frames one by one.
    assert first.ann_macs == first.dense == 3 * 32 * 32 * 3 * 9 * 2


def test_noisy_sounds_are_cut_into_windows_and_missing_inputs_are_filled(
    per_step_run: Path,
) -> None:
    silent, grey = Missing("audio", "silence"), Missing("visual", "grey")
    wanted = [Clean(), Noisy("audio", 10.0), silent, grey]
    with open_part(StoredRun(per_step_run), "test", CPU) as opened:
        inputs = list(read_inputs(opened, wanted, opened.rows))
        with open_sounds(opened.run.config) as sounds:
            images = torch.from_numpy(sounds.images(opened.rows, [10.0])[10.0])
        expected = audio_inputs(images, opened.run.config.settings)
    noisy = torch.cat([one.under(Noisy("audio", 10.0))[0] for one in inputs], 1)
    assert noisy.shape[0] == 3
    assert torch.equal(noisy, expected)
    audio, frames = inputs[0].under(Clean())
    assert inputs[0].under(silent)[0].shape == audio.shape
    assert inputs[0].under(grey)[1].shape == frames.shape


def test_files_get_the_answers_of_the_evaluation(per_step_run: Path, small_demo: Path) -> None:
    with open_part(StoredRun(per_step_run), "test", CPU) as opened:
        scores = opened.scores()
        expected = dict(zip(opened.keys, scores.probabilities.max(1).tolist(), strict=True))
    raw = small_demo / "demo" / "raw"
    paths = [raw / "video" / f"{key}.mp4" for key in expected]
    found = list(predict_files(StoredRun(per_step_run), [*paths, raw / "audio"], device=CPU))
    answers = {Path(one.clip).stem: one for one in found if one.sound}
    assert {key: answers[key].confidence for key in expected} == expected
    silent = list(predict_files(StoredRun(per_step_run), [raw / "audio"], device=CPU))
    assert all(one.answer and one.missing == ["visual"] for one in silent)


@pytest.mark.parametrize("words", [PER_STEP, (*TINY, "data.frames=per-step")])
def test_exported_networks_take_an_image_for_each_time_step(
    small_demo: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    network = open_network(run(small_demo, tmp_path / "r", *words))
    audio, visual = network.description.inputs
    windowed = "data.audio=per-step" in words
    assert audio.shape == [*([3] if windowed else []), "batch", 1, 32, 32]
    assert visual.shape == [3, "batch", 3, 32, 32]
    assert "step t of T" in visual.content
    assert ("step t of T" in audio.content) == windowed
    inputs = [
        torch.randn([2 if side == "batch" else int(side) for side in one.shape])
        for one in (audio, visual)
    ]
    with torch.no_grad():
        due = network.model(*inputs).logits
    program = torch.jit.load(io.BytesIO(torchscript_file(network)))
    assert torch.allclose(program(*inputs), due, atol=1e-5)
    session = onnxruntime.InferenceSession(onnx_file(network))
    given = {"audio": inputs[0].numpy(), "visual": inputs[1].numpy()}
    assert torch.allclose(torch.from_numpy(session.run(None, given)[0]), due, atol=1e-4)


def test_every_format_is_written(avsnn: Command, per_step_run: Path, tmp_path: Path) -> None:
    for kind in ("nir", "safetensors", "huggingface"):
        done = avsnn("export", per_step_run, "--format", kind, "--out", tmp_path / kind)
        assert done.returncode == 0, done.stderr
    card = (tmp_path / "huggingface" / "README.md").read_text()
    assert "`[3, batch, 3, 32, 32]`" in card


def test_python_gives_clips_and_the_network_of_the_run(
    small_demo: Path, per_step_run: Path
) -> None:
    words = ["model.steps=3", "data.size=32", "data.frames=per-step"]
    clips = avsnn.open_clips("demo", "test", root=small_demo, settings=words)
    clip = clips[0]
    assert clip.audio.shape == (1, 32, 32)
    assert clip.visual.shape == (3, 3, 32, 32)
    network = avsnn.load(per_step_run, device="cpu").network
    windows = avsnn.open_clips("demo", "test", root=small_demo, settings=PER_STEP)[0]
    with torch.no_grad():
        logits = network(windows.audio[:, None], windows.visual[:, None]).logits
    assert logits.shape == (1, 6)


def test_the_shapes_of_a_run_are_those_of_the_caches_and_the_inputs_follow_from_the_settings(
    per_step_run: Path,
) -> None:
    config = load_config(per_step_run)
    assert config.shapes is not None
    assert config.shapes.frames == (3, 96, 96)
    assert input_shapes(config.shapes, config.settings) == ((3, 3, 32, 32), (3, 1, 32, 32))


def test_the_memory_of_a_frame_for_each_step_counts_the_first_stage_in_every_step(
    small_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: list[int] = []
    monkeypatch.setattr(memory, "_require_bytes", lambda count, *_: needed.append(count))
    shapes = SampleShapes((3, 96, 96), (1, 256, 256))
    for words in (PER_STEP, TINY):
        config = make_config("demo", settings_of(*words, "model.steps=100"), root=small_demo)
        require_memory(config, shapes, CPU, processes=1)
    # Two streams: the output of the first stage, [100, 8, 2, 32, 32] float32, instead of one step.
    first = 100 * 8 * 2 * 32 * 32 * 4
    assert needed[0] - needed[1] == pytest.approx(2.6 * 2 * first * 0.99, rel=0.01)


@pytest.mark.parametrize(
    ("dataset", "word", "sentence"),
    [
        ("demo-events", "data.frames=per-step", r"event frames.*leave data.frames at published"),
        ("demo-events", "data.audio=growing", r"event frames.*leave data.audio at whole"),
        ("av-digits", "data.frames=per-step", r"one image for each clip and no video"),
    ],
)
def test_data_without_videos_are_refused(
    tmp_path: Path, dataset: str, word: str, sentence: str
) -> None:
    root = write_event_data(tmp_path, dataset=dataset)
    with pytest.raises(UserError, match=sentence):
        make_config(dataset, settings_of(word), root=root)


def test_a_single_stored_frame_is_refused_with_the_prepare_that_stores_more(
    avsnn: Command, tmp_path: Path
) -> None:
    words = ("--limit", "36", "--set", "extract.frames=1", "--workers", "0")
    done = avsnn("prepare", "demo", "--root", tmp_path, *words)
    assert done.returncode == 0, done.stderr
    train_words = [w for word in PER_STEP for w in ("--set", word)]
    refused = avsnn("train", "demo", "--root", tmp_path, "--run", tmp_path / "r", *train_words)
    assert refused.returncode == 2
    advice = f"'avsnn prepare demo --root {tmp_path} --limit 36 --set extract.frames=3'"
    assert advice in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "r").exists()
    words = ("--limit", "36", "--set", "extract.frames=3", "--workers", "0")
    done = avsnn("prepare", "demo", "--root", tmp_path, *words)
    assert "changed since the last prepare: extract.frames was 1, is 3\n" in done.stderr
    assert "changed" not in avsnn("prepare", "demo", "--root", tmp_path, *words).stderr
