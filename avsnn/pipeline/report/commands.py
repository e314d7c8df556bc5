"""The commands that repeat a run."""

import shlex
from pathlib import Path

from avsnn.pipeline.formats.prepare_settings import prepare_command
from avsnn.pipeline.report.labels import Run
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.settings_overrides import assignments, flatten


def commands(run: Run) -> list[str]:
    """Return the commands that install packages, prepare the data, train and measure."""
    config, folder = run.results.config, Path("runs") / run.results.name
    train = ["avsnn", "train", config.dataset, "--run", str(folder)]
    train += assignments(config.settings, always=_spelt_out(config))
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
    prepare = prepare_command(config.dataset, config.data.settings)
    return [*map(shlex.join, install), prepare, shlex.join(train), shlex.join(evaluate)]


def _spelt_out(config: RunConfig) -> set[str]:
    """Return the settings that the command must name although they are the defaults.

    A preset of the data set may change a default, and a person may have changed the setting back.
    """
    words = config.made_with.get("command", "").split()
    if words[1:2] == ["train"] and not any(word.startswith("--preset") for word in words):
        return {word.removeprefix("--set=").partition("=")[0] for word in words if "=" in word}
    return set(flatten(config.settings))
