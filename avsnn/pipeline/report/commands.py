"""The commands that repeat a run."""

import json
import shlex
from pathlib import Path

from pydantic import BaseModel

from avsnn.pipeline.report.labels import Run
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.settings_overrides import flatten, parse_yaml


def commands(run: Run) -> list[str]:
    """Return the commands that install packages, prepare the data, train and measure."""
    config, folder = run.results.config, Path("runs") / run.results.name
    prepare = ["avsnn", "prepare", config.dataset]
    if config.data.settings.limit is not None:
        prepare += ["--limit", str(config.data.settings.limit)]
    prepare += _assignments(config.data.settings, without=("limit",))
    train = ["avsnn", "train", config.dataset, "--run", str(folder)]
    train += _assignments(config.settings, always=_spelt_out(config))
    plugins = config.plugins.values()
    files = dict.fromkeys(plugin.name for plugin in plugins if plugin.is_file)
    words = [word for name in files for word in ("--plugin", name)]
    train += words
    evaluate = ["avsnn", "evaluate", str(folder), "--part", run.results.evaluation.part]
    if run.results.robustness is not None:
        evaluate.append("--robustness")
    if run.results.insight is not None:
        evaluate.append("--insight")
    evaluate += words
    needed = dict.fromkeys(f"{one.name}=={one.version}" for one in plugins if not one.is_file)
    install = [["pip", "install", *needed]] if needed else []
    return [shlex.join(words) for words in (*install, prepare, train, evaluate)]


def _assignments(
    settings: BaseModel, *, always: set[str] | None = None, without: tuple[str, ...] = ()
) -> list[str]:
    """Return ``--set KEY=VALUE`` for every setting that is not the default, and for some more."""
    defaults = flatten(type(settings)())
    words = []
    for key, value in flatten(settings).items():
        if key not in without and (value != defaults.get(key) or key in (always or ())):
            is_plain = isinstance(value, str) and parse_yaml(value) == value
            words += ["--set", f"{key}={value if is_plain else json.dumps(value)}"]
    return words


def _spelt_out(config: RunConfig) -> set[str]:
    """Return the settings that the command must name although they are the defaults.

    A preset of the data set may change a default, and a person may have changed the setting back.
    """
    words = config.made_with.get("command", "").split()
    if words[1:2] == ["train"] and not any(word.startswith("--preset") for word in words):
        return {word.removeprefix("--set=").partition("=")[0] for word in words if "=" in word}
    return set(flatten(config.settings))
