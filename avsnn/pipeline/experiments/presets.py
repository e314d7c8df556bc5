"""Presets: named settings, one YAML file for each name, in the folder ``presets``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from avsnn.errors import UserError
from avsnn.pipeline.settings_overrides import parse_yaml
from avsnn.suggestions import did_you_mean

FOLDER = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_preset(name_or_path: str) -> dict[str, Any]:
    """Return the settings of a preset, or of a YAML file of one's own.

    Raises:
        UserError: there is no such preset and no such file, or the file holds no settings.
    """
    known = preset_names()
    if name_or_path in known:
        return dict(yaml.safe_load((FOLDER / f"{name_or_path}.yaml").read_text()))
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(
            f"no preset is called {name_or_path!r}; {did_you_mean(name_or_path, known)}there are: "
            f"{', '.join(known)}."
        )
    try:
        found = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--preset {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(f"--preset {path} is no YAML file: {error}.") from None
    if not isinstance(found, dict):
        raise UserError(f"--preset {path} holds no settings, such as 'epochs: 5'.")
    return found


def load_presets(dataset: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the presets that change the default settings, in the order in which they apply.

    Args:
        dataset: name of the data set; a preset of this name comes first.
        names: the presets, or files, that the user asks for.

    Raises:
        UserError: there is no preset of such a name.
    """
    own = [dataset] if dataset in preset_names() else []
    return [load_preset(name) for name in [*own, *names]]
