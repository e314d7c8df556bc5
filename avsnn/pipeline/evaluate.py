"""7. Measures: a trained run against a part of its split."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from avsnn.errors import UserError
from avsnn.pipeline.augment import add_noise, centre_frames, resize_audio
from avsnn.pipeline.checkpoint import read_checkpoint
from avsnn.pipeline.files import fingerprint, locate, sha256, write_atomically
from avsnn.pipeline.index import read_index
from avsnn.pipeline.order import evaluation_requests, sample_noise, shared_out
from avsnn.pipeline.prepare import load_prepared
from avsnn.pipeline.ranks import Ranks
from avsnn.pipeline.run import (
    RunConfig,
    TrainSettings,
    build_network,
    choose_kernels,
    load_config,
)
from avsnn.pipeline.stage import Progress
from avsnn.pipeline.stream import Loader, ShardSource, Source, ZarrSource

EVALUATE_VERSION = 1

# A number that no training epoch has: evaluation draws noise of its own, the same every time.
EVALUATION_EPOCH = 2**63

Part = Literal["train", "val", "test"]


class Scores(NamedTuple):
    """A model's answers: logits ``[N, classes]``, labels ``[N]``, both in row order."""

    logits: torch.Tensor
    labels: torch.Tensor

    @property
    def loss(self) -> float:
        """Mean cross-entropy, without label smoothing."""
        return float(cross_entropy(self.logits, self.labels))

    @property
    def accuracy(self) -> float:
        """Top-1, share of clips."""
        return self.top(1)

    def top(self, k: int) -> float:
        """Share of clips whose class is among the ``k`` highest logits."""
        best = self.logits.topk(k, dim=1).indices
        return int((best == self.labels[:, None]).any(1).sum()) / len(self.labels)


class ClassReport(BaseModel):
    """One class.

    Precision: of the clips called so, the share that are. Recall: of the clips that are, the share
    called so. F1: their harmonic mean.
    """

    name: str
    precision: float
    recall: float
    f1: float
    clips: int


class Evaluation(BaseModel):
    """What ``report/<part>.json`` holds. ``top5`` only where there are more than five classes."""

    fingerprint: str
    run: str
    dataset: str
    method: str
    split: str
    part: Part
    epoch: int
    selection: str
    clips: int
    loss: float
    top1: float
    top5: float | None
    classes: list[ClassReport]
    confusion: list[list[int]]


def evaluate(
    folder: Path, *, part: Part, root: Path | None, device: torch.device, progress: Progress
) -> tuple[Evaluation, bool]:
    """Measures the best checkpoint of a run on one part of the split it was trained on.

    Returns:
        the evaluation, and whether it had been made before and was only read again.

    Raises:
        UserError: the folder is not a run, has no checkpoint yet, or its data are gone or changed.
    """
    config = load_config(folder)
    if root is not None:
        config = config.model_copy(update={"root": root.absolute()})
    checkpoint = _best(folder)
    if not checkpoint.exists():
        raise UserError(f"{folder} has no checkpoint yet; run 'avsnn train' with --resume first.")
    if (made := recorded(folder, config, part=part)) is not None:
        return made, True
    choose_kernels("auto", device)
    model, epoch = load_model(config, checkpoint)
    with Loader(partial(open_data, config), workers=0, pin=device.type == "cuda") as loader:
        rows = rows_of(config, loader.source, part)
        progress.start(f"evaluate {part}", len(rows), "clips")
        scores = predict(
            model.to(device), loader, rows, config.settings, device=device, progress=progress
        )
    progress.stop()
    mark = _mark(folder, config, part)
    result = _summarise(config, scores, part=part, epoch=epoch, mark=mark, run=folder.name)
    write_atomically(_report(folder, part), (result.model_dump_json(indent=1) + "\n").encode())
    return result, False


def recorded(folder: Path, config: RunConfig, *, part: Part) -> Evaluation | None:
    """What was measured before of the present best checkpoint; None where nothing was."""
    report = _report(folder, part)
    if not (report.exists() and _best(folder).exists()):
        return None
    made = Evaluation.model_validate_json(report.read_bytes())
    return made if made.fingerprint == _mark(folder, config, part) else None


def _best(folder: Path) -> Path:
    return folder / "checkpoints" / "best.safetensors"


def _report(folder: Path, part: Part) -> Path:
    return folder / "report" / f"{part}.json"


def _mark(folder: Path, config: RunConfig, part: Part) -> str:
    return fingerprint([EVALUATE_VERSION, config.data.fingerprint, part, sha256(_best(folder))])


def predict(
    model: nn.Module,
    loader: Loader,
    rows: NDArray[np.int64],
    settings: TrainSettings,
    *,
    device: torch.device,
    progress: Progress | None = None,
    ranks: Ranks = Ranks(),  # noqa: B008 - a constant
) -> Scores:
    """The model's logits for some rows, in their order, without augmentation.

    Several processes each work on a part of the rows, every one of which is counted once.
    """
    # For networks that draw numbers even here (SCA, as published): the same ones every time.
    torch.manual_seed(settings.seed)
    model.eval()
    logits, labels = [], []
    size = settings.data.size
    mine = shared_out(rows, rank=ranks.rank, ranks=ranks.count)
    batch_size = max(1, settings.batch_size // ranks.count)
    with torch.inference_mode(), autocast(settings, device):
        for batch in loader.read(evaluation_requests(mine, batch_size=batch_size)):
            frames = centre_frames(
                batch.frames.to(device), settings=settings.data.augment, size=size
            )
            if settings.data.augment.noise_in_evaluation:
                frames = with_noise(frames, batch.rows, settings, epoch=EVALUATION_EPOCH)
            output = model(resize_audio(batch.audio.to(device), size=size), frames)
            logits.append(output.logits.float().cpu())
            labels.append(batch.labels)
            if progress is not None:
                progress.advance(len(batch.rows))
    # A process may have got no row.
    none = torch.empty(0)
    own = Scores(torch.cat([none, *logits]), torch.cat([none.long(), *labels]))
    return Scores(*(ranks.concatenate(tensor) for tensor in own))


def autocast(settings: TrainSettings, device: torch.device) -> AbstractContextManager[object]:
    """The precision that the settings ask for."""
    if settings.compute.precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def with_noise(
    frames: Tensor, rows: NDArray[np.int64], settings: TrainSettings, *, epoch: int
) -> Tensor:
    """Frames ``[B, 3, H, W]`` with the noise that the settings ask for, if any."""
    snr = settings.data.augment.noise_snr
    if snr is None:
        return frames
    shape = tuple(frames.shape[1:])
    noise = sample_noise(seed=settings.seed, epoch=epoch, rows=rows, shape=shape)
    return add_noise(frames, noise, snr=snr)


def open_data(config: RunConfig, *, shards: bool = False) -> Source:
    """The samples a run was trained on, from its caches or from its shards; they are the same.

    Raises:
        UserError: they are gone, or were prepared anew with other content.
    """
    prepared = load_prepared(config.root, config.dataset)
    if prepared is None:
        raise UserError(
            f"{config.dataset} is not prepared in {config.root}; run 'avsnn prepare "
            f"{config.dataset}', or give its folder with --root."
        )
    if prepared.fingerprint != config.data.fingerprint:
        raise UserError(
            f"{config.dataset} in {config.root} is not what this run was trained on; prepare it "
            "with the settings in the run's config.yaml (data.settings)."
        )
    folder = config.root / config.dataset
    if shards:
        return ShardSource(
            shards=locate(folder, prepared.shards),
            frames=prepared.settings.frames,
            audio=prepared.settings.audio,
        )
    return ZarrSource(frames=locate(folder, prepared.frames), audio=locate(folder, prepared.audio))


def rows_of(config: RunConfig, source: Source, *parts: str) -> NDArray[np.int64]:
    """Rows of the caches that belong to some parts of the run's split.

    Raises:
        UserError: no clip does.
    """
    index = read_index(config.root / config.dataset / config.data.index)
    part_of = {row.key: row.splits[config.split] for row in index}
    rows = [i for i, key in enumerate(source.keys) if part_of[key] in parts]
    if not rows:
        raise UserError(
            f"{config.dataset}: no prepared clip is in {' or '.join(parts)} of the split "
            f"{config.split!r}; prepare more of them (see --limit)."
        )
    return np.array(rows, np.int64)


def load_model(config: RunConfig, checkpoint: Path) -> tuple[nn.Module, int]:
    """A run's network with the weights of a checkpoint, and the epoch they are of.

    Raises:
        UserError: the checkpoint does not fit the run.
    """
    model = build_network(config)
    weights, facts = read_checkpoint(checkpoint)
    try:
        model.load_state_dict(weights)
        return model, int(facts["epoch"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{checkpoint} does not fit its run ({reason}); train it again.") from None


def _summarise(
    config: RunConfig, scores: Scores, *, part: Part, epoch: int, mark: str, run: str
) -> Evaluation:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    names = config.manifest.classes
    every = list(range(len(names)))
    truth, guess = scores.labels.numpy(), scores.logits.argmax(1).numpy()
    columns: tuple[Any, ...] = precision_recall_fscore_support(
        truth, guess, labels=every, zero_division=0
    )
    return Evaluation(
        fingerprint=mark,
        run=run,
        dataset=config.dataset,
        method=config.settings.model.method,
        split=config.split,
        part=part,
        epoch=epoch,
        selection=config.settings.selection,
        clips=len(truth),
        loss=scores.loss,
        top1=scores.accuracy,
        top5=scores.top(5) if len(names) > 5 else None,
        classes=[
            ClassReport(name=name, precision=p, recall=r, f1=f, clips=n)
            for name, p, r, f, n in zip(names, *columns, strict=True)
        ],
        confusion=confusion_matrix(truth, guess, labels=every).tolist(),
    )
