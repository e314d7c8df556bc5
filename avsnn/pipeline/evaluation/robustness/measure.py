"""Measures how a network answers to noisy, missing and swapped inputs."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsnn.models.spikformer import AudioSpikformer, VisualSpikformer
from avsnn.pipeline.engine.progress import Progress
from avsnn.pipeline.evaluation.intervals import Resampling
from avsnn.pipeline.evaluation.robustness.conditions import (
    Clean,
    Condition,
    Missing,
    Noisy,
    Swapped,
    conditions,
)
from avsnn.pipeline.evaluation.robustness.inputs import read_inputs
from avsnn.pipeline.evaluation.robustness.record import (
    MissingModality,
    NoiseCurve,
    NoisePoint,
    NoisyInput,
    Robustness,
)
from avsnn.pipeline.evaluation.robustness.swapped import measure_swapped, swapped_sounds
from avsnn.pipeline.inference.device import autocast
from avsnn.pipeline.inference.open_part import OpenPart
from avsnn.pipeline.inference.predict import Scores
from avsnn.pipeline.runs.sample_shapes import is_events

# The class that a network names for each clip of a part, ``[N]``, under each condition.
Answers = dict[Condition, NDArray[np.int64]]


def measure_robustness(
    opened: OpenPart,
    clean: Scores,
    resampling: Resampling,
    *,
    fingerprint: str,
    progress: Progress,
) -> Robustness:
    """Measure how a network answers to noisy, missing and swapped inputs.

    A network of one modality gets noise on the input that the network reads, and nothing else.

    Args:
        opened: the network, and the clips of a part.
        clean: the scores of the evaluation.
        resampling: gives the intervals.
        fingerprint: the fingerprint of the result.
        progress: told of every answer.

    Raises:
        UserError: the shards, which hold the waveforms, are missing, damaged or cannot be read.
    """
    config = opened.run.config
    labels = clean.labels.numpy()
    wanted = _wanted(opened, labels)
    is_swapped = Swapped() in wanted
    sounds = swapped_sounds(labels) if is_swapped else np.arange(len(labels))
    progress.start(f"robustness on {opened.part}", len(wanted) * len(labels), "answers")
    answers: Answers = {Clean(): clean.answers}
    answers |= answers_under(opened, wanted, opened.rows[sounds], progress)
    progress.stop()
    swapped = None
    if is_swapped:
        swapped = measure_swapped(
            answers[Swapped()], heard=labels[sounds], seen=labels, resampling=resampling
        )
    has_events = is_events(opened.loader.source.shapes.audio)
    audio_noise: Literal["waveform", "event frames"] = "event frames" if has_events else "waveform"
    is_noisy = any(isinstance(one, Noisy) and one.has_noisy_audio for one in wanted)
    return Robustness(
        fingerprint=fingerprint,
        part=opened.part,
        clips=len(labels),
        trained_with_noise=config.settings.data.augment.noise_snr,
        prepared_with_noise=None if has_events else config.data.settings.audio.noise_snr,
        audio_noise=audio_noise if is_noisy else None,
        curves=_curves(answers, labels, resampling),
        missing=_missing(answers, labels, resampling),
        swapped=swapped,
    )


def _wanted(opened: OpenPart, labels: NDArray[np.int64]) -> list[Condition]:
    """Return the conditions to measure."""
    augment = opened.run.config.settings.data.augment
    return conditions(
        hears=not isinstance(opened.model, VisualSpikformer),
        sees=not isinstance(opened.model, AudioSpikformer),
        has_events=is_events(opened.loader.source.shapes.audio),
        noise_in_evaluation=augment.noise_snr is not None and augment.noise_in_evaluation,
        classes=len(np.unique(labels)),
    )


def answers_under(
    opened: OpenPart,
    wanted: Sequence[Condition],
    other_rows: NDArray[np.int64],
    progress: Progress,
) -> Answers:
    """Return the answers of a network under some conditions.

    All conditions are computed batch by batch, so each clip is read once and each noise is drawn
    once.

    Args:
        opened: the network, and the clips of a part.
        wanted: the conditions.
        other_rows: the row whose sound each clip gets in `Swapped`, ``[N]``.
        progress: told of every answer.

    Raises:
        UserError: the shards, which hold the waveforms, are missing, damaged or cannot be read.
    """
    settings = opened.run.config.settings
    gpus = [opened.device] if opened.device.type == "cuda" else []
    logits: dict[Condition, list[Tensor]] = {condition: [] for condition in wanted}
    # Some networks draw numbers also in evaluation (SCA, as published). With the seed and with
    # `fork_rng`, these numbers are the same under every condition as in the evaluation.
    torch.manual_seed(settings.seed)
    opened.model.eval()
    with torch.inference_mode():
        for inputs in read_inputs(opened, wanted, other_rows):
            for number, condition in enumerate(wanted, 1):
                audio, frames = inputs.under(condition)
                with (
                    torch.random.fork_rng(gpus, enabled=number < len(wanted)),
                    autocast(settings, opened.device),
                ):
                    found = opened.model(audio, frames).logits
                logits[condition].append(found.float())
                progress.advance(len(found))
    # Of equal logits, numpy takes the first, like `Scores.answers`.
    return {
        condition: torch.cat(batches).cpu().numpy().argmax(1)
        for condition, batches in logits.items()
    }


def _curves(
    answers: Answers, labels: NDArray[np.int64], resampling: Resampling
) -> list[NoiseCurve]:
    """Return a curve for each noisy input that was measured."""
    clean = NoisePoint(snr=None, top1=resampling.share(answers[Clean()] == labels))
    points: dict[NoisyInput, list[NoisePoint]] = {}
    for condition, named in answers.items():
        if isinstance(condition, Noisy):
            share = resampling.share(named == labels)
            points.setdefault(condition.target, [clean]).append(
                NoisePoint(snr=condition.snr, top1=share)
            )
    return [NoiseCurve(target=target, points=found) for target, found in points.items()]


def _missing(
    answers: Answers, labels: NDArray[np.int64], resampling: Resampling
) -> list[MissingModality]:
    """Return the accuracy for each missing modality that was measured."""
    return [
        MissingModality(
            missing=condition.modality,
            filling=condition.filling,
            top1=resampling.share(named == labels),
        )
        for condition, named in answers.items()
        if isinstance(condition, Missing)
    ]
