"""Presets: named settings, one YAML file for each name, in the folder ``presets``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from avsnn.errors import UserError

FOLDER = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_presets(dataset: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the presets that change the default settings, in the order in which they apply.

    Args:
        dataset: name of the data set; a preset of this name comes first.
        names: the presets that the user asks for.

    Raises:
        UserError: there is no preset of such a name.
    """
    known = preset_names()
    for name in names:
        if name not in known:
            raise UserError(f"no preset is called {name!r}; there are: {', '.join(known)}.")
    own = [dataset] if dataset in known else []
    return [yaml.safe_load((FOLDER / f"{name}.yaml").read_text()) for name in [*own, *names]]
