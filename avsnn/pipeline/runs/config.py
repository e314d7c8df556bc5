"""``config.yaml`` of a run folder: what was trained, on which data, and how to do it again."""

from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from avsnn.datasets_manifest import Manifest, load
from avsnn.errors import UserError
from avsnn.models.balance import BalanceSettings
from avsnn.pipeline.engine.atomic_files import write_atomically
from avsnn.pipeline.engine.fingerprint import fingerprint
from avsnn.pipeline.formats.clip_index import COLUMNS, ROWS, open_index
from avsnn.pipeline.formats.prepared_json import Prepared, require_prepared
from avsnn.pipeline.plugin_file import PluginFacts
from avsnn.pipeline.runs.needed_plugins import (
    differing_plugins,
    require_known_plugins,
    with_present_names,
)
from avsnn.pipeline.runs.plugin import plugins_of
from avsnn.pipeline.runs.provenance import provenance
from avsnn.pipeline.runs.sample_shapes import SampleShapes
from avsnn.pipeline.runs.train_settings import AugmentSettings, DataSettings, TrainSettings
from avsnn.pipeline.settings_overrides import first_mistake, flatten, parse_yaml
from avsnn.suggestions import did_you_mean, nearest, there_are

# Raise this number by hand when the same settings train another network than before.
TRAIN_VERSION = 3

# The folder in which `train` puts a run folder by default.
RUNS = Path("runs")

# The key of `RunConfig.made_with` that only a converted run has.
CONVERTED_FROM = "converted_from"

# The setting of the group `compute` that changes nothing of the result.
CUDA_GRAPH = "cuda_graph"

# The file has some 100 lines; a larger file is no config.yaml, and would take minutes to parse.
MAX_CONFIG_BYTES = 1_000_000


class RunConfig(BaseModel):
    """``config.yaml`` of a run folder.

    Attributes:
        fingerprint: changes with the settings, the data, the plugins (of a file its
            content, of a package its name) and ``TRAIN_VERSION``.
        dataset: name of the data set.
        root: folder that holds the data sets.
        data: the prepared data that the run is trained on.
        clips: fingerprint of label, class name and part of every clip; None in a run of a version
            that did not record the fingerprint.
        settings: all settings of the training.
        made_with: command, versions and machine of the first start; see ``provenance``.
        shapes: shapes of the samples, so that the network can answer where the prepared data are
            gone; None in a run of a version that did not record the shapes.
        plugins: the files and packages that hold the method or another entry of a registry, by the
            setting that chooses the entry; avsnn has what is missing here.
    """

    fingerprint: str
    dataset: str
    root: Path
    data: Prepared
    clips: str | None = None
    settings: TrainSettings
    made_with: dict[str, str]
    shapes: SampleShapes | None = None
    plugins: dict[str, PluginFacts] = {}

    @model_validator(mode="before")
    @classmethod
    def _read_former_names(cls, values: Any) -> Any:
        return with_present_names(values)

    @property
    def manifest(self) -> Manifest:
        """The facts about the data set."""
        return load(self.dataset)

    @property
    def split(self) -> str:
        """Name of the split that the run is trained on.

        Raises:
            UserError: the data set has no such split.
        """
        return require_split(self.manifest, self.settings)

    @property
    def converted_from(self) -> str:
        """Name of the file of the authors' code that the run was converted from; empty if none."""
        return self.made_with.get(CONVERTED_FROM, "")

    @property
    def folder_name(self) -> str:
        """A name for the run folder; two different runs never share a name."""
        settings = self.settings
        return f"{self.dataset}-{settings.model.method}-seed{settings.seed}-{self.fingerprint[:8]}"


def make_config(dataset: str, settings: TrainSettings, *, root: Path) -> RunConfig:
    """Return the configuration of a training; touch nothing.

    Raises:
        UserError: the data set does not exist, is not prepared, has no such split, or has nothing
            else to show in every time step.
    """
    manifest = load(dataset)
    split = require_split(manifest, settings)
    _require_videos(manifest, settings.data)
    prepared = require_prepared(root, dataset)
    clips = _fingerprint_of_clips(root / dataset / prepared.index, split)
    facts = identifying_settings(settings, manifest)
    plugins = plugins_of(settings)
    identity = [TRAIN_VERSION, dataset, prepared.fingerprint, clips, facts]
    identity += [plugin.identity for plugin in plugins.values()]
    return RunConfig(
        fingerprint=fingerprint(identity),
        dataset=dataset,
        root=root.absolute(),
        data=prepared,
        clips=clips,
        settings=settings,
        made_with=provenance(),
        plugins=plugins,
    )


def _fingerprint_of_clips(folder: Path, split: str) -> str:
    """Return the fingerprint of an index for a split; see `ClipIndex.fingerprint`.

    A table makes hundreds of configurations on one index, and the fingerprint reads every clip.

    Raises:
        UserError: the index is missing or damaged.
    """
    # A missing or damaged index is refused before its files are looked at.
    open_index(folder)
    written = [(folder / name).stat() for name in (ROWS, COLUMNS)]
    versions = tuple((file.st_ino, file.st_size, file.st_mtime_ns) for file in written)
    return _fingerprint_of_version(folder, split, versions)


@lru_cache(maxsize=32)
def _fingerprint_of_version(folder: Path, split: str, _versions: tuple[Any, ...]) -> str:
    return open_index(folder).fingerprint(split)


def identifying_settings(settings: TrainSettings, manifest: Manifest) -> dict[str, Any]:
    """Return the settings that tell one run from another run.

    A CUDA graph changes nothing of the result. Settings that came later than the first runs are
    left out while they have their defaults, so the runs of earlier versions stay the same runs. The
    padding changes nothing of a run on images.
    """
    facts = settings.model_dump(mode="json")
    del facts["compute"][CUDA_GRAPH]
    for key in ("frames", "audio", "shuffle_window", "clips_per_class"):
        if facts["data"][key] == DataSettings.model_fields[key].default:
            del facts["data"][key]
    if not settings.optimizer.recalibrate_norms:
        del facts["optimizer"]["recalibrate_norms"]
    if settings.balance == BalanceSettings():
        del facts["balance"]
    if settings.compute.tf32:
        del facts["compute"]["tf32"]
    if custom := facts["model"].pop("custom"):
        # The runs of earlier versions have the former name in their identity.
        facts["model"]["options"] = custom
    if not manifest.has_events or settings.data.augment.padding == AugmentSettings().padding:
        del facts["data"]["augment"]["padding"]
    return facts


def _require_videos(manifest: Manifest, data: DataSettings) -> None:
    """Refuse another input in every time step where a data set has no such inputs.

    Raises:
        UserError: the clips are event frames, which are one for each time step already, or images.
    """
    for name in ("frames", "audio"):
        value, published = getattr(data, name), DataSettings.model_fields[name].default
        if manifest.has_events and value != published:
            raise UserError(
                f"data.{name} is {value}, but the clips of {manifest.name} are event frames, of "
                f"which a network sees one in every time step already: leave data.{name} at "
                f"{published}."
            )
    if data.frames == "per-step" and manifest.visual == "image":
        raise UserError(
            f"data.frames is per-step, but {manifest.name} has one image for each clip and no "
            "video: leave data.frames at published."
        )


def save_config(folder: Path, config: RunConfig) -> None:
    """Write ``config.yaml`` into a run folder."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomically(folder / "config.yaml", text.encode())


def load_config(folder: Path) -> RunConfig:
    """Read ``config.yaml`` of a run folder.

    Raises:
        UserError: the folder is not a run, or the file cannot be read.
    """
    return check_config(folder, read_config(folder))


def read_config(folder: Path) -> Any:
    """Return the value of ``config.yaml`` of a run folder, which may be any plain value.

    Raises:
        UserError: the folder is not a run, or the file is no YAML or cannot be read.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(_no_run(folder))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
        if len(content) > MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {MAX_CONFIG_BYTES:,} bytes")
        return parse_yaml(content)
    except (ValueError, OSError) as error:
        reason = error.strerror or "" if isinstance(error, OSError) else str(error)
        raise _unreadable_error(folder, reason) from None


def require_plugins_of(folder: Path) -> None:
    """Refuse to resume a run whose plugins are not here; a folder that is no run has none.

    The settings that a person types name the same entries, but not the plugins that hold them.

    Raises:
        UserError: a plugin is missing or has a fault, or ``config.yaml`` cannot be read.
    """
    if (folder / "config.yaml").is_file():
        require_known_plugins(read_config(folder), folder)


def check_config(folder: Path, value: Any) -> RunConfig:
    """Return the configuration that ``config.yaml`` of a run folder holds.

    Args:
        folder: the run folder.
        value: the value of the file, from `read_config`.

    Raises:
        UserError: the value is no configuration of this version, or of a data set or a method that
            is unknown here.
    """
    require_known_plugins(value, folder)
    try:
        config = RunConfig.model_validate(value)
    except ValidationError as error:
        raise _unreadable_error(folder, first_mistake(error)) from None
    require_split(config.manifest, config.settings)
    return config


def _unreadable_error(folder: Path, reason: str) -> UserError:
    path = folder / "config.yaml"
    return UserError(f"{path} cannot be read ({reason}); restore it or train again.")


def _no_run(folder: Path) -> str:
    """Return a sentence that names the runs beside a folder that is no run, and those in runs/."""
    missing = "it has no config.yaml" if folder.is_dir() else "there is no such folder"
    if folder.is_file():
        run = folder.parent
        of_run = f"; did you mean {run}?" if (run / "config.yaml").is_file() else "."
        return f"{folder} is not a run folder: it is a file{of_run}"
    runs: dict[str, str] = {}
    for place in (RUNS, folder.parent):
        # A folder that nobody may enter has no runs to name.
        with suppress(OSError):
            found = [path.parent for path in place.glob("*/config.yaml") if path.is_file()]
            runs |= {run.name: str(run) for run in found}
    advice = "'avsnn train' makes a run."
    if runs:
        name = nearest(folder.name, runs)
        meant = f"did you mean {runs[name]}? " if name else ""
        advice = f"{meant}{there_are(folder.name, runs.values())}."
    return f"{folder} is not a run folder: {missing}; {advice}"


def require_split(manifest: Manifest, settings: TrainSettings) -> str:
    """Return the name of the split that the settings choose."""
    split = settings.data.split or manifest.default_split
    if split not in manifest.splits:
        raise UserError(
            f"setting data.split cannot be {split!r}; {did_you_mean(split, manifest.splits)}in "
            f"{manifest.name} {there_are(split, manifest.splits)}."
        )
    return split


def require_same(config: RunConfig, folder: Path) -> None:
    """Check that a run folder holds the run of this configuration.

    Raises:
        UserError: the folder holds another run; the sentence names what differs.
    """
    found = load_config(folder)
    if found.fingerprint == config.fingerprint:
        return
    here, there = flatten(config.settings), flatten(found.settings)
    differing = [
        f"{key} {there.get(key)} there, {here.get(key)} here"
        for key in [*here, *(there.keys() - here)]
        if here.get(key) != there.get(key) and key != f"compute.{CUDA_GRAPH}"
    ]
    if config.dataset != found.dataset:
        differing.insert(0, f"data set {found.dataset} there, {config.dataset} here")
    elif config.data.fingerprint != found.data.fingerprint:
        differing.append("the prepared data changed")
    elif config.clips != found.clips:
        differing.append("labels, class names or parts of the split changed")
    differing += differing_plugins(found.plugins, config.plugins)
    if found.converted_from or config.converted_from:
        there_from = found.converted_from and f"converted from {found.converted_from}"
        differing.append(f"its weights were {there_from or 'trained'} and are other weights")
    reasons = "; ".join(differing) or "an earlier version of avsnn or of a plugin trained it"
    raise UserError(f"{folder} holds another run ({reasons}); choose another --run.")
