"""Settings that make a training, but hardly the training that a person wants."""

from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.training.optimizer import peak_learning_rate

# A training of ten epochs or more is no short check, and so few steps teach a network little.
FEWEST_STEPS, FEWEST_EPOCHS = 50, 10


def oddities(settings: TrainSettings, *, steps_per_epoch: int) -> list[str]:
    """Return a sentence about every pair of settings that makes little sense together.

    Args:
        settings: the settings of the training.
        steps_per_epoch: number of steps in an epoch, which depends on the number of clips.
    """
    optimizer, augment = settings.optimizer, settings.data.augment
    epochs, warmup = settings.epochs, optimizer.warmup_epochs
    found = []
    if warmup >= epochs:
        found.append(
            f"optimizer.warmup_epochs is {warmup} and epochs is {epochs}: the learning rate stays "
            f"in its warm-up and never reaches its peak; try --set optimizer.warmup_epochs="
            f"{epochs // 10}"
        )
    peak = peak_learning_rate(optimizer, batch_size=settings.batch_size)
    for name, rate in (("min_lr", optimizer.min_lr), ("warmup_lr", optimizer.warmup_lr)):
        if rate > peak:
            found.append(
                f"optimizer.{name} is {rate:g}, above the peak of the learning rate, {peak:g} "
                f"(optimizer.base_lr {optimizer.base_lr:g} * batch_size {settings.batch_size} / "
                f"1024); lower optimizer.{name} or raise optimizer.base_lr"
            )
    if augment.noise_in_evaluation and augment.noise_snr is None:
        found.append(
            "data.augment.noise_in_evaluation is true and data.augment.noise_snr is unset: no "
            "noise is added"
        )
    data, method = settings.data, settings.model.method
    for name, value, published, other in (
        ("frames", data.frames, "published", "audio"),
        ("audio", data.audio, "whole", "visual"),
    ):
        if method == other and value != published:
            found.append(
                f"data.{name} is {value} and model.method is {method}, which does not read the "
                f"{name}: the setting changes nothing"
            )
    steps, batch_size = steps_per_epoch * epochs, settings.batch_size
    if steps < FEWEST_STEPS and epochs >= FEWEST_EPOCHS and batch_size > 2:
        found.append(
            f"with batch_size {batch_size}, the clips make {steps} steps in {epochs} epochs, which "
            f"teach a network little; try --set batch_size={max(2, batch_size // 2)}, or more "
            "epochs"
        )
    return found
