"""Presets, published tables, and ``avsnn reproduce``."""
