"""avsnn in Python: a trained run, the clips of a data set, a network, tables of pandas."""

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import avsnn
from avsnn.errors import UserError
from avsnn.pipeline.rows import Rows


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def test_importing_avsnn_imports_no_torch() -> None:
    program = "import sys, avsnn; dir(avsnn); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_names_are_those_that_dir_shows() -> None:
    assert set(avsnn.__all__) <= set(dir(avsnn))
    assert all(callable(getattr(avsnn, name)) for name in avsnn.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lead'"):
        avsnn.lead  # noqa: B018 - the access is the test


def test_a_run_answers_as_its_evaluation(run: Path, small_demo: Path) -> None:
    loaded = avsnn.load(run)
    results = loaded.evaluate()
    clips = avsnn.open_clips(
        "demo", "test", root=small_demo, settings=["model.channels=16", "batch_size=8"]
    )
    assert clips.keys == [answer.key for answer in results.answers]
    found = []
    with torch.inference_mode():
        for audio, visual, _ in DataLoader(clips, batch_size=5):
            found += loaded.network(audio, visual).logits.argmax(1).tolist()
    assert [loaded.classes[number] for number in found] == [a.answer for a in results.answers]


def test_predict_gives_the_recorded_answer(run: Path, small_demo: Path) -> None:
    loaded = avsnn.load(str(run))
    answer = loaded.evaluate().answers[0]
    raw = small_demo / "demo" / "raw"
    files = (raw / "video" / f"{answer.key}.mp4", raw / "audio" / f"{answer.key}.wav")
    (prediction,) = loaded.predict(*files, workers=1)
    assert (prediction.answer, prediction.missing) == (answer.answer, [])
    assert prediction.confidence == pytest.approx(answer.confidence, abs=1e-6)
    frame = loaded.predict(files[0], workers=1).to_frame()
    assert list(frame["missing"]) == [["audio"]]


def test_results_become_tables(run: Path) -> None:
    results = avsnn.load(run).evaluate(robustness=True, insight=True)
    noise = results.noise.to_frame()
    assert list(noise.columns) == ["target", "snr", "top1", "low", "high"]
    assert noise[noise.snr.isna()].top1.eq(results.evaluation.top1).all()
    assert list(results.classes.to_frame().name) == list(avsnn.load(run).classes)
    assert results.spike_rates.to_frame().rate.between(0, 1).all()
    energy = results.energy.to_frame()
    assert energy.acs.sum() == pytest.approx(results.insight.energy.acs)
    assert len(results.answers.to_frame()) == results.evaluation.clips
    assert {"top1_low", "top1_high"} <= set(Rows(results.insight.steps).to_frame().columns)


def test_augmented_clips_repeat_with_the_epoch_and_differ_between_epochs(small_demo: Path) -> None:
    clips = avsnn.open_clips("demo", root=small_demo, augment=True)
    first = clips[3].visual
    clips.set_epoch(1)
    assert not torch.equal(clips[3].visual, first)
    clips.set_epoch(0)
    assert torch.equal(clips[3].visual, first)
    assert torch.equal(pickle.loads(pickle.dumps(clips))[3].visual, first)  # noqa: S301 - our own


def test_a_network_is_built_from_keywords() -> None:
    network = avsnn.build("add", classes=3, channels=16, steps=2)
    assert network(torch.zeros(1, 1, 32, 32), torch.zeros(1, 3, 32, 32)).logits.shape == (1, 3)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"classes": 1}, "at least 2 classes"),
        ({"classes": 3, "stepps": 4}, "stepps"),
        ({"classes": 3, "channels": 7}, "channels"),
        ({"classes": 3, "method": "attend"}, "attend"),
    ],
)
def test_settings_that_make_no_network_are_one_sentence(settings, sentence) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        avsnn.build(**settings)
    assert "\n" not in str(caught.value)


def test_wrong_names_are_one_sentence(small_demo: Path, tmp_path: Path) -> None:

    for call in (
        lambda: avsnn.load(tmp_path / "none"),
        lambda: avsnn.open_clips("demos", root=small_demo),
        lambda: avsnn.open_clips("demo", "tset", root=small_demo),
        lambda: avsnn.open_clips("demo", root=tmp_path),
        lambda: avsnn.open_clips("demo", root=small_demo, settings=["data.sise=3"]),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert "\n" not in str(caught.value)


WRONG_ARGUMENTS = {
    "part": (
        lambda run: run.evaluate("tset"),
        "part cannot be 'tset': there are train, val, test.",
    ),
    "format": (
        lambda run: run.export("onx"),
        "kind cannot be 'onx': there are onnx, torchscript, safetensors, nir, huggingface.",
    ),
    "device": (
        lambda run: avsnn.load(run.folder, device="gpu"),
        "device cannot be 'gpu': there are auto, cpu, cuda.",
    ),
    "list of clips": (
        lambda run: run.predict(["a.mp4", "b.mp4"]),
        "predict takes paths, and ['a.mp4', 'b.mp4'] is no path; of a list, call "
        "run.predict(*paths).",
    ),
}


@pytest.mark.parametrize("case", WRONG_ARGUMENTS)
def test_a_wrong_argument_of_a_run_is_one_sentence(run: Path, case: str) -> None:
    call, sentence = WRONG_ARGUMENTS[case]
    with pytest.raises(UserError) as caught:
        call(avsnn.load(run))
    assert str(caught.value) == sentence


def test_results_have_a_short_representation(run: Path) -> None:
    results = avsnn.load(run).evaluate()
    top1 = results.evaluation.top1
    assert repr(results) == (
        f"<RunResults of {run}: top-1 {top1:.2%} of {results.evaluation.clips} clips of test>"
    )
