"""The conditions under which a network answers: noise, a missing modality, a swapped sound."""

from typing import NamedTuple

from avsnn.datasets_manifest.clips import Modality
from avsnn.pipeline.evaluation.robustness.noise import LEVELS
from avsnn.pipeline.evaluation.robustness.record import Filling, NoisyInput


class Clean(NamedTuple):
    """Both inputs as the clip gives the inputs."""

    name: str = "clean"


class Noisy(NamedTuple):
    """Noise on one input or on both inputs.

    Attributes:
        target: which input is noisy.
        snr: signal to noise ratio in dB.
    """

    target: NoisyInput
    snr: float

    @property
    def has_noisy_audio(self) -> bool:
        """Whether the audio input is noisy."""
        return self.target != "visual"

    @property
    def has_noisy_frames(self) -> bool:
        """Whether the visual input is noisy."""
        return self.target != "audio"


class Missing(NamedTuple):
    """An input without information.

    Attributes:
        modality: the modality that is missing.
        filling: what the network gets instead.
    """

    modality: Modality
    filling: Filling


class Swapped(NamedTuple):
    """The sound of a clip of another class."""

    name: str = "swapped"


Condition = Clean | Noisy | Missing | Swapped


def conditions(
    *, hears: bool, sees: bool, has_events: bool, noise_in_evaluation: bool, classes: int
) -> list[Condition]:
    """Return the conditions that mean something for a network, without those known already.

    Args:
        hears: whether the network reads the audio input.
        sees: whether the network reads the visual input.
        has_events: whether the data are event frames.
        noise_in_evaluation: whether the evaluation of the run has noise, so that the evaluation
            does not tell the answers for clean inputs.
        classes: number of different classes among the clips. One class has no other class, whose
            sounds could be swapped in.
    """
    targets: list[NoisyInput] = ["visual"] if sees else []
    targets += ["audio"] if hears else []
    targets += ["both"] if hears and sees else []
    found: list[Condition] = [Clean()] if noise_in_evaluation else []
    found += [Noisy(target, snr) for target in targets for snr in LEVELS]
    if hears and sees:
        found += [
            Missing("audio", "zeros"),
            Missing("audio", "no events" if has_events else "silence"),
        ]
        found += [
            Missing("visual", "zeros"),
            Missing("visual", "no events" if has_events else "grey"),
        ]
        if classes > 1:
            found.append(Swapped())
    return found
