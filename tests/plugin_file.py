"""The plugin of the page on fusion methods, and a registry that forgets the plugins of a test."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avsnn.models.methods import METHODS
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
    methods, plugins, modules = dict(METHODS), dict(plugin._plugins), dict(sys.modules)
    try:
        yield
    finally:
        METHODS.data = methods
        plugin._plugins.clear()
        plugin._plugins.update(plugins)
        for name in sys.modules.keys() - modules:
            if name == "my_fusion" or name.startswith("avsnn_plugin_"):
                del sys.modules[name]
