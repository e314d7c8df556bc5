"""A run folder: what was trained, on which data, and what it takes to do it again."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import BaseModel, Field, PositiveInt, ValidationError
from torch import nn

from avsnn.datasets_manifest import Manifest, load
from avsnn.errors import UserError
from avsnn.models import kernels
from avsnn.models.losses import LossSettings
from avsnn.models.patch_split import PATCH_SPLITS
from avsnn.models.zoo import ModelSettings, build
from avsnn.pipeline.augment import AugmentSettings
from avsnn.pipeline.files import fingerprint, write_atomically
from avsnn.pipeline.prepare import Prepared, load_prepared, not_prepared
from avsnn.pipeline.settings import Settings, flatten

# Raised by hand when the same settings would train something else.
TRAIN_VERSION = 2

PRESETS = Path(__file__).parent / "presets"


class DataSettings(Settings):
    """What the network sees."""

    split: str | None = Field(default=None, description="a split of the data set; its default")
    size: PositiveInt = Field(default=128, description="px, frames and audio images")
    augment: AugmentSettings = AugmentSettings()


class OptimizerSettings(Settings):
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


class ComputeSettings(Settings):
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


class DistributedSettings(Settings):
    """What several processes do together; without effect on one. Off, as published: each alone."""

    sync_batch_norm: bool = Field(
        default=False, description="statistics of batch norm over the batches of all processes"
    )
    global_alignment: bool = Field(
        default=False, description="the alignment loss over the clips of all processes"
    )


class TrainSettings(Settings):
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


class RunConfig(BaseModel):
    """``config.yaml`` of a run folder."""

    fingerprint: str
    dataset: str
    root: Path
    data: Prepared
    settings: TrainSettings
    made_with: dict[str, str]

    @property
    def manifest(self) -> Manifest:
        """The facts about its data set."""
        return load(self.dataset)

    @property
    def split(self) -> str:
        """The split trained on."""
        return self.settings.data.split or self.manifest.default_split

    @property
    def folder_name(self) -> str:
        """A name that two different runs never share."""
        settings = self.settings
        return f"{self.dataset}-{settings.model.method}-seed{settings.seed}-{self.fingerprint[:8]}"


def presets() -> list[str]:
    """Names of all presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_presets(dataset: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """Settings to lay over the defaults in turn: the data set's own, then those named.

    Raises:
        UserError: no preset has such a name.
    """
    known = presets()
    for name in names:
        if name not in known:
            raise UserError(f"no preset is called {name!r}; there are: {', '.join(known)}.")
    own = [dataset] if dataset in known else []
    return [yaml.safe_load((PRESETS / f"{name}.yaml").read_text()) for name in [*own, *names]]


def make_config(dataset: str, settings: TrainSettings, *, root: Path) -> RunConfig:
    """What a training would be.

    Raises:
        UserError: the data set does not exist or is not prepared, or has no such split.
    """
    manifest = load(dataset)
    split = settings.data.split
    if split is not None and split not in manifest.splits:
        raise UserError(
            f"setting data.split cannot be {split!r}: {dataset} has {', '.join(manifest.splits)}."
        )
    prepared = load_prepared(root, dataset)
    if prepared is None:
        raise not_prepared(dataset, root)
    identity = [TRAIN_VERSION, dataset, prepared.fingerprint, settings.model_dump(mode="json")]
    return RunConfig(
        fingerprint=fingerprint(identity),
        dataset=dataset,
        root=root.absolute(),
        data=prepared,
        settings=settings,
        made_with=_made_with(),
    )


def build_network(config: RunConfig) -> nn.Module:
    """The run's network, untrained; its weights come from torch's default generator.

    Raises:
        UserError: the settings make no network, or one that cannot take images of their size.
    """
    chosen, size = config.settings.model, config.settings.data.size
    patch = 2 ** len(PATCH_SPLITS[chosen.patch_split])
    try:
        model = build(
            chosen, classes=len(config.manifest.classes), tokens=(size // patch) ** 2
        ).eval()
        with torch.no_grad():
            model(torch.zeros(1, 1, size, size), torch.zeros(1, 3, size, size))
    except ValueError as error:
        raise UserError(f"these settings make no network: {error}") from None
    return model


def choose_kernels(name: str, device: torch.device) -> str:
    """Settles which kernels compute neurons in this process; returns what that is on a device.

    Raises:
        UserError: they do not run there.
    """
    if device.type == "cpu":
        kernels.keep_memory()
    try:
        return kernels.choose(name, device)
    except ValueError as error:
        raise UserError(f"compute.kernels: {error}") from None


def save_config(folder: Path, config: RunConfig) -> None:
    """Writes ``config.yaml``."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomically(folder / "config.yaml", text.encode())


def load_config(folder: Path) -> RunConfig:
    """Reads ``config.yaml``.

    Raises:
        UserError: the folder is not a run, or its configuration cannot be read.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"{folder} is not a run folder: it has no config.yaml; give one of train's."
        )
    try:
        return RunConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read ({reason}); restore it or train again.") from None


def require_same(ours: RunConfig, folder: Path) -> None:
    """Checks that a run folder holds this very run.

    Raises:
        UserError: it holds another; names what differs.
    """
    theirs = load_config(folder)
    if theirs.fingerprint == ours.fingerprint:
        return
    here, there = flatten(ours.settings), flatten(theirs.settings)
    differing = [
        f"{key} {there.get(key)} there, {here[key]} here"
        for key in here
        if here[key] != there.get(key)
    ]
    if ours.dataset != theirs.dataset:
        differing.insert(0, f"data set {theirs.dataset} there, {ours.dataset} here")
    elif ours.data.fingerprint != theirs.data.fingerprint:
        differing.append("the prepared data changed")
    raise UserError(f"{folder} holds another run ({'; '.join(differing)}); choose another --run.")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``, one per finished epoch; a torn last line is left out."""
    path = folder / "metrics.jsonl"
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _made_with() -> dict[str, str]:
    libraries = ("torch", "numpy", "zarr", "webdataset", "soxr", "opencv-python-headless")
    return {
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["avsnn", *sys.argv[1:]]),
        "avsnn": version("avsnn"),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
        "processes": os.environ.get("WORLD_SIZE", "1"),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
        "cores": str(os.cpu_count()),
    }


def _git_commit() -> str:
    """The commit of an avsnn that runs from its checkout; empty for an installed one."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return ""
    answer = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()
