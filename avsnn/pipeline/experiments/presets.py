"""Presets: named settings, one YAML file for each name, in the folder ``presets``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from avsnn.datasets_manifest import load
from avsnn.errors import UserError
from avsnn.suggestions import did_you_mean

FOLDER = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_presets(dataset: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the presets that change the default settings, in the order in which they apply.

    Args:
        dataset: name of the data set; a preset of this name comes first. Where there is no such
            preset, the preset comes first that the YAML of the data set names.
        names: the presets that the user asks for.

    Raises:
        UserError: there is no preset of such a name, or no such data set.
    """
    known = preset_names()
    for name in names:
        if name not in known:
            raise UserError(f"no preset is called {name!r}; there are: {', '.join(known)}.")
    own = [dataset] if dataset in known else []
    if not own and (named := load(dataset).preset) is not None:
        if named not in known:
            raise UserError(
                f"{dataset}.yaml: preset: no preset is called {named!r}; "
                f"{did_you_mean(named, known)}there are: {', '.join(known)}."
            )
        own = [named]
    return [yaml.safe_load((FOLDER / f"{name}.yaml").read_text()) for name in [*own, *names]]
