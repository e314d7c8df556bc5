"""A finished run folder from a checkpoint of the authors' code, without any training."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from avsnn.errors import UserError
from avsnn.models.zoo import AuthorsState
from avsnn.pipeline.engine.atomic_files import not_written_error, write_atomically
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.engine.lock import lock_folder
from avsnn.pipeline.inference.network import build_network
from avsnn.pipeline.loading.dataset import open_source
from avsnn.pipeline.runs.checkpoint import Checkpoint, best_checkpoint, pack_checkpoint, read_bytes
from avsnn.pipeline.runs.config import (
    CONVERTED_FROM,
    RunConfig,
    make_config,
    require_same,
    save_config,
)
from avsnn.pipeline.runs.convert_checkpoint import ConvertSettings, read_authors_checkpoint
from avsnn.pipeline.runs.sample_shapes import SampleShapes
from avsnn.pipeline.runs.train_settings import TrainSettings
from avsnn.pipeline.settings_overrides import build_settings
from avsnn.pipeline.training.train import require_free

# The epoch of weights whose epoch nobody knows.
UNKNOWN_EPOCH = 0

# The authors' code keeps the epoch with the best accuracy on the test part.
PUBLISHED = {"selection": "test"}


class ConvertedRun(NamedTuple):
    """A run that was converted.

    Attributes:
        imported: the weights and the settings of the network.
        config: the configuration of the run.
        written: whether anything was written; false if the folder held the same run before.
    """

    imported: AuthorsState
    config: RunConfig
    written: bool


def convert_to_run(
    file: Path,
    folder: Path,
    *,
    dataset: str,
    root: Path,
    presets: Sequence[Mapping[str, Any]],
    assignments: Sequence[str],
) -> ConvertedRun:
    """Write a run folder that ``evaluate`` and ``export`` take like a trained run.

    Args:
        file: the checkpoint of the authors' code.
        folder: the run folder; made here.
        dataset: name of the data set of the run, which must be prepared.
        root: folder that holds the data sets.
        presets: the settings that the published runs on the data set changed.
        assignments: words of the form ``key=value``: the settings of ``ConvertSettings``, and
            settings of a training outside ``model``.

    Raises:
        UserError: the checkpoint cannot be read safely, the data set is not prepared, the network
            does not fit the data set, or the folder holds something else.
        RunError: another command writes into the folder, or the disk is full.
    """
    about_network = [word for word in assignments if _network_key(word)]
    others = [word for word in assignments if not _network_key(word)]
    _require_no_model(others)
    usual = build_settings(TrainSettings, [*presets, PUBLISHED], others)
    # The settings of the network that no weight tells are those of the published runs.
    untold = {name: getattr(usual.model, name) for name in ("steps", "heads", "alpha")}
    convert = build_settings(ConvertSettings, [untold], map(_network_key, about_network))
    imported = read_authors_checkpoint(file, convert)
    settings = usual.model_copy(update={"model": imported.settings})
    content = pack_checkpoint(Checkpoint(imported.state, {"epoch": UNKNOWN_EPOCH}))
    config = make_config(dataset, settings, root=root)
    identity = [config.fingerprint, hashlib.sha256(content).hexdigest()]
    made_with = {**config.made_with, CONVERTED_FROM: file.name}
    config = config.model_copy(
        update={"fingerprint": fingerprint(identity), "made_with": made_with}
    )
    shapes = _require_fit(file, imported, config)
    config = config.model_copy(update={"shapes": shapes})
    return ConvertedRun(imported, config, _write(folder, config, content))


def _network_key(word: str) -> str:
    """Return an assignment of a setting of ``ConvertSettings``; empty for any other assignment."""
    key, equals, value = word.partition("=")
    name = key.removeprefix("model.")
    known = name in ConvertSettings.model_fields or name == "T"
    return f"{name}{equals}{value}" if known else ""


def _require_no_model(assignments: Sequence[str]) -> None:
    """Refuse settings of the network that the weights tell.

    Raises:
        UserError: an assignment changes such a setting.
    """
    for word in assignments:
        if word.startswith("model."):
            key = word.partition("=")[0]
            raise UserError(
                f"--set {key} cannot change a network that is converted: its weights say what it "
                f"is; only {', '.join(ConvertSettings.model_fields)} can be set."
            )


def _require_fit(file: Path, imported: AuthorsState, config: RunConfig) -> SampleShapes:
    """Refuse weights that do not fit the prepared data of a run, and return the data's shapes.

    Raises:
        UserError: the classes, the channels, the time steps or the sizes differ.
    """
    classes = config.manifest.classes
    if imported.classes != len(classes):
        raise UserError(
            f"{file} holds a network for {imported.classes} classes, and {config.dataset} has "
            f"{len(classes)}; name the data set of its training with --dataset."
        )
    shapes = open_source(config).shapes
    try:
        build_network(config, shapes).load_state_dict(imported.state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip().rstrip(".")
        raise UserError(
            f"{file} does not fit the inputs of {config.dataset} ({reason}); name the data set of "
            "its training with --dataset."
        ) from None
    return shapes


def _write(folder: Path, config: RunConfig, content: bytes) -> bool:
    """Write the run folder, and return whether anything was written."""
    checkpoint = best_checkpoint(folder)
    if (folder / "config.yaml").exists():
        require_same(config, folder)
        if checkpoint.exists() and read_bytes(checkpoint) == content:
            return False
    else:
        require_free(folder)
    with lock_folder(folder):
        try:
            if not (folder / "config.yaml").exists():
                save_config(folder, config)
            write_atomically(checkpoint, content)
        except OSError as error:
            raise not_written_error(folder, error, "choose another run folder") from None
    return True
