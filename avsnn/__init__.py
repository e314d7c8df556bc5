"""Audio-visual spiking neural networks, from media files to a measured model."""

from importlib.metadata import version

__version__ = version("avsnn")
