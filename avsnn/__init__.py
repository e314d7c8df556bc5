"""Audio-visual spiking neural networks, from media files to a measured model.

``load`` opens a trained run, ``build`` makes a network, ``open_clips`` opens the clips of a
prepared data set, and ``SpikingClassifier`` loads a Hugging Face folder. docs/api.md describes all
of them.
"""

# A type checker takes a variable of this name for the one of `typing`. This file imports nothing,
# because Python executes this file before `__main__` takes the current folder off the search path.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from avsnn.pipeline.export.hub import SpikingClassifier as SpikingClassifier
    from avsnn.pipeline.library.build import build as build
    from avsnn.pipeline.library.clips import open_clips as open_clips
    from avsnn.pipeline.library.run import load as load

# The module of each name. A module is imported when its name is first used, because torch takes
# seconds to import, and most commands need none of the modules.
_MODULES = {
    "build": "library.build",
    "open_clips": "library.clips",
    "load": "library.run",
    "SpikingClassifier": "export.hub",
}

__all__ = ["SpikingClassifier", "build", "load", "open_clips"]


def __getattr__(name: str) -> object:
    """Return the version, or a function of the library, when the name is first used."""
    from importlib import import_module

    if name == "__version__":
        return import_module("avsnn.version").VERSION
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"avsnn.pipeline.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, for people who look at the module in a notebook."""
    return [*__all__, "__version__"]
