"""The names that a shell completes: data sets, presets, tables and runs.

A shell waits for these functions at every press of the Tab key, so no function imports torch.
"""

from contextlib import suppress
from pathlib import Path

from avsnn.errors import UserError


def complete_dataset(incomplete: str) -> list[str]:
    """Return the names of data sets that begin with a text."""
    from avsnn.datasets_manifest import names

    # A message in the middle of a command line would help nobody.
    with suppress(UserError):
        return _that_begin(names(), incomplete)
    return []


def complete_preset(incomplete: str) -> list[str]:
    """Return the names of presets that begin with a text."""
    from avsnn.pipeline.experiments.presets import preset_names

    return _that_begin(preset_names(), incomplete)


def complete_table(incomplete: str) -> list[str]:
    """Return the names of published tables that begin with a text."""
    from avsnn.pipeline.experiments.read_table import table_names

    return _that_begin(table_names(), incomplete)


def complete_run(incomplete: str) -> list[str]:
    """Return the run folders in runs/ that begin with a text."""
    with suppress(OSError):
        found = (str(path.parent) for path in Path("runs").glob("*/config.yaml"))
        return _that_begin(sorted(found), incomplete)
    return []


def _that_begin(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
