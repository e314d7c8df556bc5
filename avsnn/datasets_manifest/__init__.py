"""Facts about data sets: one YAML each, a table of its clips, and the schema that checks both."""

from avsnn.datasets_manifest.schema import Clip, Manifest, MediaFile, load, names

__all__ = ["Clip", "Manifest", "MediaFile", "load", "names"]
