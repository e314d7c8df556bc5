"""A folder in the form of the Hugging Face Hub: config.json, model.safetensors and README.md."""

import json
from typing import Any

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
