"""The answers for files are those of `evaluate`, whatever the files, workers and machines are."""

import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from avsnn.pipeline.inference.open_part import open_part
from avsnn.pipeline.prediction import predict as module
from avsnn.pipeline.prediction.predict import predict_files
from avsnn.pipeline.prediction.record import Prediction
from avsnn.pipeline.runs.stored_run import StoredRun
from tests.conftest import ALONE, ONE_SMALL_EPOCH, PROJECT
from tests.warm import Warm

CPU = torch.device("cpu")


def predict(run: Path, *paths: Path, workers: int = 1, said: list[str] | None = None):
    say = (said if said is not None else []).append
    return list(predict_files(StoredRun(run), paths, device=CPU, workers=workers, say=say))


def stem_of(prediction: Prediction) -> str:
    return Path(prediction.clip).stem


def evaluated(run: Path) -> dict[str, tuple[str, float]]:
    """Return class and confidence that evaluation computes for every clip of a run, by key."""
    answers = {}
    for part in ("train", "val", "test"):
        with open_part(StoredRun(run), part, CPU) as opened:
            shares = opened.scores().probabilities
            classes = opened.run.config.manifest.classes
            for key, share in zip(opened.keys, shares, strict=True):
                answers[key] = (classes[int(share.argmax())], float(share.max()))
    return answers


def require_answers_of_evaluation(run: Path, raw: Path) -> None:
    expected = evaluated(run)
    found = [one for one in predict(run, raw) if stem_of(one) in expected]
    assert {stem_of(one): (one.answer, one.confidence) for one in found} == expected
    assert all(one.sound and not one.missing and not one.reason for one in found)


def test_clips_of_the_data_set_get_the_answers_of_evaluation(
    small_run: Path, small_demo: Path
) -> None:
    require_answers_of_evaluation(small_run, small_demo / "demo" / "raw")


@pytest.fixture(scope="module")
def event_run(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on 36 clips of demo-events; the data are in ``data`` beside the run."""
    folder = tmp_path_factory.mktemp("events")
    small = ("model.channels=16", "model.steps=4", "batch_size=8", "epochs=1")
    prepare = ["prepare", "demo-events", "--limit", "36", "--set", "events.steps=4", *ALONE]
    train = ["train", "demo-events", "--run", "run", *(w for one in small for w in ("--set", one))]
    for words in (prepare, train):
        done = warm.run(words, folder)
        assert done.returncode == 0, done.stderr
    return folder / "run"


def test_recordings_of_event_sensors_get_the_answers_of_evaluation(event_run: Path) -> None:
    require_answers_of_evaluation(event_run, event_run.parent / "data" / "demo-events" / "raw")


def test_a_recording_without_its_pair_is_answered_and_garbage_is_not(
    event_run: Path, tmp_path: Path
) -> None:
    raw = event_run.parent / "data" / "demo-events" / "raw"
    camera = next((raw / "visual").iterdir())
    cochlea = raw / "audio" / f"{camera.stem}.hdf5"
    garbage = tmp_path / "garbage.hdf5"
    garbage.write_bytes(b"garbage")
    one, other, bad = predict(event_run, camera, garbage), predict(event_run, cochlea), None
    one, bad = one
    assert (one.missing, one.reason) == (["audio"], "there is no recording of the cochlea")
    assert (other[0].missing, other[0].reason) == (
        ["visual"],
        "there is no recording of the camera",
    )
    assert one.answer
    assert other[0].answer
    assert bad.answer is None
    assert bad.reason.startswith("the recording of the cochlea cannot be read as HDF5")
    (named,) = predict(event_run, Path(f"{cochlea}/train/{camera.stem}"))
    assert named.top == other[0].top


def without_data(run: Path, tmp_path: Path, *, with_shapes: bool) -> Path:
    """Return a copy of a run that does not find the prepared data."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["root"] = str(tmp_path / "gone")
    if not with_shapes:
        del config["shapes"]
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    return copy


def test_a_run_answers_the_same_where_the_data_are_gone(
    small_run: Path, small_demo: Path, event_run: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    video = next((small_demo / "demo" / "raw" / "video").iterdir())
    copy = without_data(small_run, tmp_path / "media", with_shapes=True)
    assert predict(copy, video, said=said) == predict(small_run, video)
    recording = next((event_run.parent / "data" / "demo-events" / "raw" / "visual").iterdir())
    # The formats of the recordings tell the sizes of the sensors.
    copy = without_data(event_run, tmp_path / "events", with_shapes=False)
    assert predict(copy, recording, said=said) == predict(event_run, recording)
    assert said == []


def test_a_run_that_recorded_no_shapes_takes_the_shapes_of_the_data_or_of_the_settings(
    small_run: Path, small_demo: Path, tmp_path: Path
) -> None:
    video = next((small_demo / "demo" / "raw" / "video").iterdir())
    said: list[str] = []
    copy = without_data(small_run, tmp_path, with_shapes=False)
    (answer,) = predict(copy, video, said=said)
    assert answer.answer
    assert "frames are resized to 256 x 256 px" in said[0]
    config = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump(config | {"root": str(small_demo)}))
    assert predict(copy, video) == predict(small_run, video)


def test_an_answer_depends_neither_on_other_clips_nor_on_workers(
    small_run: Path, small_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = small_demo / "demo" / "raw"
    videos = sorted((raw / "video").iterdir())[:11]
    sounds = [raw / "audio" / f"{video.stem}.wav" for video in videos]
    together = predict(small_run, *videos, *sounds, workers=3)
    assert [one.clip for one in together] == list(map(str, videos))
    alone = predict(small_run, videos[10], sounds[10])
    assert alone == together[10:]
    assert predict(small_run, *videos, *sounds) == together
    # Batches of three clips, the last one of two clips.
    monkeypatch.setattr(module, "CLIPS_ON_CPU", 3)
    assert predict(small_run, *videos, *sounds) == together


def test_a_caller_may_stop_in_the_middle(small_run: Path, small_demo: Path) -> None:
    threads, children = torch.get_num_threads(), set(multiprocessing.active_children())
    folder = small_demo / "demo" / "raw"
    predictions = predict_files(StoredRun(small_run), [folder], device=CPU, workers=2)
    next(predictions)
    predictions.close()
    assert torch.get_num_threads() == threads
    assert set(multiprocessing.active_children()) <= children


def test_a_missing_modality_is_zero_at_the_input_of_the_network(
    small_run: Path, small_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = []
    compute = module.batch_logits

    def watched(model, batch, settings, **options):
        handle = model.register_forward_pre_hook(lambda _, given: inputs.append(given))
        logits = compute(model, batch, settings, **options)
        handle.remove()
        return logits

    monkeypatch.setattr(module, "batch_logits", watched)
    raw = small_demo / "demo" / "raw"
    sound, other = sorted((raw / "audio").iterdir())[:2]
    video = raw / "video" / f"{other.stem}.mp4"
    heard, seen = predict(small_run, sound, video)
    assert (heard.missing, heard.reason) == (["visual"], "there is no picture")
    assert (seen.missing, seen.reason) == (["audio"], "there is no sound")
    ((audio, frames),) = inputs
    assert [bool(row.any()) for row in audio[:2]] == [True, False]
    assert [bool(row.any()) for row in frames[:2]] == [False, True]


def test_a_network_that_only_hears_gives_no_answer_without_sound(
    warm: Warm, small_demo: Path, tmp_path: Path
) -> None:
    words = ["--root", str(small_demo), *ONE_SMALL_EPOCH, "--set", "model.method=audio"]
    done = warm.run(["train", "demo", "--run", "run", *words], tmp_path)
    assert done.returncode == 0, done.stderr
    raw = small_demo / "demo" / "raw"
    sound, other = sorted((raw / "audio").iterdir())[:2]
    heard, seen = predict(tmp_path / "run", sound, raw / "video" / f"{other.stem}.mp4")
    assert heard.answer
    assert (seen.answer, seen.top, seen.missing) == (None, [], ["audio"])
    assert seen.reason == "there is no sound, and the network reads nothing else"


def test_a_script_of_three_lines_predicts(
    small_run: Path, small_demo: Path, tmp_path: Path
) -> None:
    """The children of the script do not execute the script again."""
    video = next((small_demo / "demo" / "raw" / "video").iterdir())
    script = tmp_path / "three_lines.py"
    script.write_text(
        "import torch; from pathlib import Path\n"
        "from avsnn.pipeline.prediction.predict import predict_files as predict\n"
        "from avsnn.pipeline.runs.stored_run import StoredRun; print('once')\n"
        f"run, clip = StoredRun(Path({str(small_run)!r})), Path({str(video)!r})\n"
        "print([one.answer for one in predict(run, [clip], device=torch.device('cpu'))])\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(PROJECT), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["once", str([predict(small_run, video)[0].answer])]
