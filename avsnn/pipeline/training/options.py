"""How a training is carried out: options that change nothing of the result."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RunOptions:
    """How a training is carried out; no option here changes the trained weights.

    Attributes:
        device: the device that computes.
        resume: go on with a run that was cut off.
        workers: number of processes that read batches; 0 reads in a thread of this process.
        shards: read the WebDataset shards instead of the caches.
        save_every: also save a resume point after this many steps, not only after every epoch.
        keep: number of resume points to keep.
    """

    device: torch.device
    resume: bool = False
    workers: int = 0
    shards: bool = False
    save_every: int | None = None
    keep: int = 2
