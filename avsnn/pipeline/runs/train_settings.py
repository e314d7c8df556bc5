"""Settings of a training."""

from typing import Literal

from pydantic import Field, PositiveInt

from avsnn.models.losses import LossSettings
from avsnn.models.zoo import ModelSettings
from avsnn.strict_model import StrictModel


class AugmentSettings(StrictModel):
    """How a frame becomes the network's input; the defaults are the published ones."""

    min_area: float = Field(default=0.08, gt=0, le=1, description="smallest crop, share of frame")
    max_ratio: float = Field(default=4 / 3, ge=1, description="crop width to height, at most")
    flip: bool = Field(default=True, description="mirror half of the training frames")
    noise_snr: float | None = Field(
        default=None, description="dB; Gaussian noise on the normalised training frames"
    )
    noise_in_evaluation: bool = Field(
        default=False, description="the same noise in evaluation; published runs had none there"
    )
    test_crop: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="side of the centred test square, share of the frame's shorter side; the "
        "published 0.5 sees the middle quarter of a square frame",
    )


class DataSettings(StrictModel):
    """What the network sees."""

    split: str | None = Field(default=None, description="a split of the data set; its default")
    size: PositiveInt = Field(default=128, description="px, frames and audio images")
    augment: AugmentSettings = AugmentSettings()


class OptimizerSettings(StrictModel):
    """AdamW, linear warm-up, cosine decay; stepped per epoch."""

    base_lr: float = Field(default=5e-3, gt=0, description="learning rate at batch 1024")
    min_lr: float = Field(default=1e-5, ge=0)
    warmup_lr: float = Field(default=1e-6, ge=0)
    warmup_epochs: int = Field(default=5, ge=0)
    weight_decay: float = Field(
        default=1e-4, ge=0, description="none on biases and other 1-D parameters"
    )
    accumulate: PositiveInt = Field(
        default=1,
        description="parts that a batch is worked on in, one after the other, before each step; "
        "batch norm and alignment then see a part at a time",
    )
    clip_norm: float | None = Field(
        default=None, gt=0, description="longest gradient, over all parameters; longer are scaled"
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="evaluate and keep a moving average of the weights, such as 0.999",
    )


class ComputeSettings(StrictModel):
    """How it is computed; the defaults are those of the published runs."""

    precision: Literal["float32", "bf16"] = Field(
        default="float32", description="bf16: autocast of convolutions and matrix products"
    )
    kernels: Literal["auto", "torch", "cpu", "triton"] = Field(
        default="auto",
        description="of neurons: C (cpu), Triton, plain torch; auto: the fastest there are",
    )
    compile: bool = Field(default=False, description="torch.compile, which needs a C++ compiler")
    recompute: bool = Field(
        default=False,
        description="keep the inputs of blocks only and compute them twice: less memory, more time",
    )
    channels_last: bool = Field(
        default=False, description="images with their channels innermost; faster on some devices"
    )


class DistributedSettings(StrictModel):
    """What several processes do together; without effect on one. Off, as published: each alone."""

    sync_batch_norm: bool = Field(
        default=False, description="statistics of batch norm over the batches of all processes"
    )
    global_alignment: bool = Field(
        default=False, description="the alignment loss over the clips of all processes"
    )


class TrainSettings(StrictModel):
    """A training, whole. The defaults are the published recipe for CREMA-D."""

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    loss: LossSettings = LossSettings()
    compute: ComputeSettings = ComputeSettings()
    distributed: DistributedSettings = DistributedSettings()
    epochs: PositiveInt = 100
    batch_size: int = Field(default=128, ge=2, description="clips of a step, over all processes")
    seed: int = Field(default=42, ge=0, lt=2**32)
    selection: Literal["val", "test", "last"] = Field(
        default="val",
        description="the best epoch on validation; on test, as published (train then includes the "
        "validation part); or no choice: train on both, keep the last epoch",
    )

    @property
    def train_parts(self) -> tuple[str, ...]:
        """Parts of the split that are trained on."""
        return ("train",) if self.selection == "val" else ("train", "val")
