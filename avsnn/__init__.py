"""Audio-visual spiking neural networks, from media files to a measured model."""


def __getattr__(name: str) -> str:
    """Return the version when it is asked for.

    This file imports nothing, because Python executes this file before ``__main__`` takes the
    current folder off the search path.
    """
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("avsnn")
