"""A folder in the form of the Hugging Face Hub: config.json, model.safetensors and README.md."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from avsnn.pipeline.export.model_card import model_card
from avsnn.pipeline.export.run_network import NetworkDescription, RunNetwork

# `SpikingClassifier` holds the network under this name, so the names of all weights begin with it.
PREFIX = "network."


def hub_files(network: RunNetwork) -> dict[str, bytes]:
    """Return the files of the folder by name; ``SpikingClassifier.from_pretrained`` reads them.

    The order is the order of writing: the configuration comes last, because a folder without
    config.json is no model.
    """
    weights = {
        PREFIX + name: weight.contiguous() for name, weight in network.model.state_dict().items()
    }
    config = json.dumps(hub_config(network.description), indent=1, sort_keys=True) + "\n"
    return {
        "model.safetensors": save(weights, metadata={"format": "pt"}),
        "README.md": model_card(network).encode(),
        "config.json": config.encode(),
    }


def hub_config(about: NetworkDescription) -> dict[str, Any]:
    """Return the arguments of ``SpikingClassifier`` as JSON values."""
    return {
        "settings": about.settings.model_dump(mode="json"),
        "classes": about.classes,
        "audio_channels": about.audio_channels,
        "visual_channels": about.visual_channels,
        "tokens": about.tokens,
        "description": about.model_dump(mode="json"),
    }


def holds_only_an_export(folder: Path) -> bool:
    """Return whether a folder holds nothing but an earlier export, whole or cut by a kill.

    The configuration is written last, so the weights alone say whose a cut export is.
    """
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if not names:
        return True
    if not names <= {"config.json", "model.safetensors", "README.md"}:
        return False
    try:
        if "config.json" in names:
            config = json.loads((folder / "config.json").read_bytes())
            return isinstance(config, dict) and {"settings", "classes"} <= config.keys()
        with safe_open(folder / "model.safetensors", "pt") as weights:
            return all(name.startswith(PREFIX) for name in weights.keys())  # noqa: SIM118
    except (OSError, ValueError, RecursionError, SafetensorError):
        return False
