"""The settings of a training; the defaults are the published values."""

from typing import Literal

from pydantic import Field

from avsnn.models.balance import BalanceSettings
from avsnn.models.losses import LossSettings
from avsnn.models.zoo import ModelSettings
from avsnn.pydantic_base import StrictModel


class AugmentSettings(StrictModel):
    """How a frame becomes the input of a network; the defaults are the published values."""

    min_area: float = Field(
        default=0.08,
        gt=0,
        le=1,
        description="Smallest area of a random crop in training, as a share of the frame's area "
        "(published: 0.08)",
    )
    max_ratio: float = Field(
        default=4 / 3,
        ge=1,
        le=100,
        description="Largest ratio of width to height of a random crop in training, and of height "
        "to width (published: 4/3)",
    )
    flip: bool = Field(
        default=True,
        description="Whether half of the training frames are mirrored left to right, as published",
    )
    noise_snr: float | None = Field(
        default=None,
        ge=-100,
        le=100,
        description="Signal to noise ratio in dB of Gaussian noise that is added to the normalised "
        "training frames; unset adds no noise",
    )
    noise_in_evaluation: bool = Field(
        default=False,
        description="Whether evaluation adds the same noise; the published runs evaluate without "
        "noise",
    )
    test_crop: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Side of the centred square that evaluation sees, as a share of the frame's "
        "shorter side; with the published 0.5, evaluation sees the middle quarter of a square "
        "frame",
    )
    padding: int = Field(
        default=4,
        ge=0,
        le=4096,
        description="Number of zeros on every side of event frames, from which a random crop of "
        "the frame's size is taken in training; without effect on images (published: 4)",
    )


class DataSettings(StrictModel):
    """What a network sees."""

    split: str | None = Field(
        default=None,
        description="Name of the split; unset takes the default split of the data set",
    )
    size: int = Field(
        default=128,
        gt=0,
        le=4096,
        description="Height and width in px of the frames and audio images that the network gets; "
        "event frames must have this size (published: 128, event frames 28)",
    )
    frames: Literal["published", "per-step"] = Field(
        default="published",
        description="Frames of a video that the network sees: published shows one frame in all "
        "time steps, a random frame in training and the middle frame in evaluation; per-step shows "
        "a frame of its own in every time step, in the order of the video",
    )
    audio: Literal["whole", "per-step", "growing"] = Field(
        default="whole",
        description="Part of the sound that the network hears in time step t of T: the whole sound "
        "(whole, as published), the t-th of T equal parts (per-step), or the first t of T equal "
        "parts (growing)",
    )
    clips_per_class: int | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        description="Number of training clips of each class, drawn with the seed of the run; a "
        "class with fewer clips gives all of its clips. Unset trains on all clips",
    )
    shuffle_window: int | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        description="Number of shards whose clips are shuffled at a time, for shards in a store; "
        "unset shuffles all clips",
    )
    augment: AugmentSettings = Field(
        default=AugmentSettings(), description="How a frame becomes the input of the network"
    )


class OptimizerSettings(StrictModel):
    """AdamW with a linear warm-up and a cosine decay; the learning rate changes once per epoch."""

    base_lr: float = Field(
        default=5e-3,
        gt=0,
        le=1000,
        description="Learning rate for batches of 1024 clips, after the warm-up and before the "
        "decay; a run takes base_lr * batch_size / 1024 (published: 0.005)",
    )
    min_lr: float = Field(
        default=1e-5,
        ge=0,
        le=1000,
        description="Learning rate at the end of the decay (published: 1e-5)",
    )
    warmup_lr: float = Field(
        default=1e-6,
        ge=0,
        le=1000,
        description="Learning rate of the first epoch (published: 1e-6)",
    )
    warmup_epochs: int = Field(
        default=5,
        ge=0,
        le=1_000_000,
        description="Number of epochs of the warm-up (published: 5)",
    )
    weight_decay: float = Field(
        default=1e-4,
        ge=0,
        le=1000,
        description="Weight decay of AdamW; biases and other one-dimensional parameters have none "
        "(published: 1e-4)",
    )
    accumulate: int = Field(
        default=1,
        gt=0,
        le=1_000_000,
        description="Number of equal parts into which a batch is cut; gradients of the parts are "
        "computed one after the other and added up before the step. Batch norm and semantic "
        "alignment then see one part at a time (published: 1)",
    )
    clip_norm: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="Largest norm of the gradient over all parameters; a longer gradient is scaled "
        "down to this norm. Unset clips nothing, as published",
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Decay of a moving average of the weights, for example 0.999; the average is "
        "then evaluated and kept instead of the weights. Unset keeps no average, as published",
    )
    recalibrate_norms: bool = Field(
        default=False,
        description="Whether the running statistics of batch norm are computed anew before every "
        "evaluation and for the saved weights, from one pass over the training clips, which are "
        "seen as in evaluation. Helps where a training has few steps; costs a forward pass over "
        "the training clips for each epoch. The published runs keep the moving statistics",
    )


class ComputeSettings(StrictModel):
    """How a network is computed; the defaults are the values of the published runs."""

    precision: Literal["float32", "bf16"] = Field(
        default="float32",
        description="Number format: float32, as published, or bf16, an autocast of convolutions "
        "and matrix products",
    )
    kernels: Literal["auto", "torch", "cpu", "triton"] = Field(
        default="auto",
        description="Kernels that compute the neurons: plain torch, C (cpu) or Triton; auto takes "
        "the fastest kernels that the device has",
    )
    compile: bool = Field(
        default=False,
        description="Whether torch.compile compiles the network, which needs a C++ compiler",
    )
    cuda_graph: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether the training step is recorded in a CUDA graph and replayed, so that a "
        "GPU does not wait for Python: auto records on a GPU; on also says why another device "
        "cannot record",
    )
    tf32: bool = Field(
        default=True,
        description="Whether a GPU rounds the operands of float32 convolutions and matrix products "
        "to TF32 (10 bits instead of 23), which leaves spikes exact; the loss is never rounded",
    )
    recompute: bool = Field(
        default=False,
        description="Whether the forward pass keeps only the inputs of each block, and the "
        "backward pass computes the block again: less memory, more time",
    )
    channels_last: bool = Field(
        default=False,
        description="Whether channels are the innermost dimension of images in memory also where "
        "Triton does not compute: Triton always has the channels innermost",
    )


class DistributedSettings(StrictModel):
    """What several processes compute together; without effect in a single process.

    By default each process works on its own clips alone, as published.
    """

    sync_batch_norm: bool = Field(
        default=False,
        description="Whether batch norm takes its statistics over the clips of all processes",
    )
    global_alignment: bool = Field(
        default=False,
        description="Whether the loss of the semantic alignment compares the clips of all "
        "processes",
    )


class TrainSettings(StrictModel):
    """All settings of a training; the defaults are the published recipe for CREMA-D."""

    model: ModelSettings = Field(default=ModelSettings(), description="The network")
    data: DataSettings = Field(default=DataSettings(), description="What the network sees")
    optimizer: OptimizerSettings = Field(
        default=OptimizerSettings(), description="The optimizer and its learning rate"
    )
    loss: LossSettings = Field(default=LossSettings(), description="The training loss")
    balance: BalanceSettings = Field(
        default=BalanceSettings(), description="How both modalities are kept in balance"
    )
    compute: ComputeSettings = Field(
        default=ComputeSettings(), description="How the network is computed"
    )
    distributed: DistributedSettings = Field(
        default=DistributedSettings(), description="What several processes compute together"
    )
    epochs: int = Field(
        default=100, gt=0, le=1_000_000, description="Number of epochs (published: 100)"
    )
    batch_size: int = Field(
        default=128,
        ge=2,
        le=1_000_000,
        description="Number of clips in a step, over all processes (published: 128)",
    )
    seed: int = Field(
        default=42,
        ge=0,
        lt=2**32,
        description="Seed of the weights, of the order of clips and of the augmentation "
        "(published: 42, 47 and 1024)",
    )
    selection: Literal["val", "test", "last"] = Field(
        default="val",
        description="How the epoch is chosen whose weights are kept as the best: val trains on "
        "train and takes the epoch with the best accuracy on val; test trains on train and val and "
        "takes the epoch with the best accuracy on test, as published; last trains on train and "
        "val and takes the last epoch",
    )

    @property
    def train_parts(self) -> tuple[str, ...]:
        """The parts of the split that the network is trained on."""
        return ("train",) if self.selection == "val" else ("train", "val")
