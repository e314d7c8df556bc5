"""Facts about data sets: a YAML file for each data set, a table of its clips, and their schema."""

from avsnn.datasets_manifest.catalogue import load, names
from avsnn.datasets_manifest.clips import Clip, MediaFile
from avsnn.datasets_manifest.schema import Manifest

__all__ = ["Clip", "Manifest", "MediaFile", "load", "names"]
