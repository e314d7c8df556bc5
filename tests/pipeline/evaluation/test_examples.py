"""Examples: which clips are shown, and that the pictures are what the network gets."""

from base64 import b64decode
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.evaluation.examples import choose_examples, choose_places
from avsnn.pipeline.inference.open_part import open_part
from avsnn.pipeline.inference.predict import Scores
from avsnn.pipeline.runs.config import make_config
from avsnn.pipeline.runs.stored_run import StoredRun
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from avsnn.pipeline.training.options import RunOptions
from avsnn.pipeline.training.train import train
from tests.event_data import write_event_data


def decoded(text: str) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(b64decode(text), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image[..., ::-1])


def scores(confidences: list[tuple[int, int, float]], classes: int = 4) -> Scores:
    """Return scores from true class, answer and confidence of each clip."""
    shares = torch.empty(len(confidences), classes, dtype=torch.float64)
    for row, (_, answer, confidence) in zip(shares, confidences, strict=True):
        row.fill_((1 - confidence) / (classes - 1))
        row[answer] = confidence
    return Scores(shares.log(), torch.tensor([truth for truth, _, _ in confidences]))


def test_the_most_confident_mistakes_come_first_and_right_answers_are_of_different_classes() -> (
    None
):
    mistakes, right = choose_places(
        scores([(0, 1, 0.5), (0, 0, 0.6), (1, 1, 0.9), (2, 3, 0.8), (0, 0, 0.7), (3, 2, 0.8)])
    )
    assert mistakes == [3, 5, 0]
    assert right == [2, 4]


def test_there_are_at_most_eight_mistakes_and_six_right_answers() -> None:
    wrong = [(n % 4, (n + 1) % 4, 0.5) for n in range(20)]
    mistakes, right = choose_places(scores(wrong))
    assert len(set(mistakes)) == 8
    assert right == []
    _, right = choose_places(scores([(n, n, 0.9) for n in range(9)], classes=9))
    assert len(right) == 6


def test_pictures_are_the_inputs_of_the_network(small_run: Path) -> None:
    run = StoredRun(small_run)
    with open_part(run, "test", torch.device("cpu")) as opened:
        clean = opened.scores()
        found = choose_examples(opened, clean, fingerprint="f")
        again = choose_examples(opened, clean, fingerprint="f")
        first = (found.mistakes + found.right)[0]
        place = opened.keys.index(first.key)
        inputs = []

        def look(
            audio: torch.Tensor, visual: torch.Tensor, rows: NDArray[np.int64]
        ) -> tuple[torch.Tensor, torch.Tensor]:
            inputs.append((audio, visual))
            return audio, visual

        opened.scores(rows=opened.rows[[place]], change=look)
    assert found == again
    audio, visual = (image[0].numpy() for image in inputs[0])
    frame, sound = decoded(first.frame), decoded(first.spectrogram)
    assert frame.shape == sound.shape == (run.config.settings.data.size,) * 2 + (3,)
    # A channel of the frame is a linear function of a channel of the input.
    for channel in range(3):
        shown, given = frame[..., channel].ravel(), visual[channel].ravel()
        assert np.corrcoef(shown, given)[0, 1] > 0.999
    # Low frequencies are at the bottom of the picture, and bright is loud.
    brightness = sound.astype(float).sum(2)[::-1]
    assert np.corrcoef(brightness.ravel(), audio[0].ravel())[0, 1] > 0.9
    names = run.config.manifest.classes
    assert first.truth == names[int(clean.labels[place])]
    assert first.answer == names[int(clean.answers[place])]
    assert first.confidence == pytest.approx(clean.probabilities[place].max())


def test_a_part_without_a_mistake_has_no_mistakes() -> None:
    assert choose_places(scores([(0, 0, 0.9)]))[0] == []


def test_event_frames_are_summed_and_have_a_colour_for_each_polarity(tmp_path: Path) -> None:
    root = write_event_data(
        tmp_path, dataset="demo-events", frames=(3, 2, 12, 12), audio=(3, 1, 4, 4)
    )
    words = ["model.patch_split=shallow", "model.channels=16", "model.steps=3", "data.size=12"]
    words += ["epochs=1", "batch_size=16", "selection=last", "optimizer.warmup_epochs=0"]
    config = make_config("demo-events", build_settings(TrainSettings, (), words), root=root)
    options = RunOptions(torch.device("cpu"))
    train(config, folder=tmp_path / "r", options=options, progress=NoProgress(), say=print)
    with open_part(StoredRun(tmp_path / "r"), "test", torch.device("cpu")) as opened:
        found = choose_examples(opened, opened.scores(), fingerprint="f")
        first = (found.mistakes + found.right)[0]
        row = opened.rows[[opened.keys.index(first.key)]]
        counts = opened.loader.source.read(row, np.array([0.5])).frames[0].sum(0).numpy()
    counts = counts.astype(float)
    off, on = np.minimum(1, counts / np.percentile(counts[counts > 0], 95))[..., None]
    # Grey light, from which OFF events leave blue and ON events leave vermilion.
    grey, blue, vermilion = np.array([[232] * 3, [0, 114, 178], [213, 94, 0]])
    light = np.clip(grey - off * (grey - blue) - on * (grey - vermilion), 0, 255)
    assert np.abs(decoded(first.frame) - light).max() <= 1
    assert decoded(first.spectrogram).shape == (12, 12, 3)
