"""The plugin of the page on fusion methods, and a registry that forgets the plugins of a test."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avsnn.pipeline.runs import plugin

PROJECT = Path(__file__).resolve().parents[1]
PAGE = PROJECT / "docs" / "add-a-fusion-method.md"

# The first block of Python on the page is the file.
TEXT = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]


def write_plugin(path: Path, *, old: str = "", new: str = "") -> Path:
    """Write the plugin of the page, with one piece of its text replaced."""
    assert old in TEXT
    path.write_text(TEXT.replace(old, new, 1) if old else TEXT)
    return path


def line_of(path: Path, piece: str) -> int:
    """Return the number of the first line that holds a piece of text."""
    lines = path.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if piece in line)


@contextmanager
def forgotten_plugins() -> Iterator[None]:
    """Take back what the code inside the context registers."""
    registries = list(plugin.REGISTRIES.values())
    before = [(dict(registry.data), dict(registry.offers)) for registry in registries]
    files, modules = dict(plugin._files), dict(sys.modules)
    try:
        yield
    finally:
        for registry, (entries, offers) in zip(registries, before, strict=True):
            registry.data, registry.offers = entries, offers
        plugin._files.clear()
        plugin._files.update(files)
        for name in sys.modules.keys() - modules:
            if name == "my_fusion" or name.startswith("avsnn_plugin_"):
                del sys.modules[name]
