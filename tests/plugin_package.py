"""Packages with entry points for avsnn, as pip leaves them in a folder of the search path."""

import os
import re
from pathlib import Path

from tests.plugin_file import PAGE, TEXT

# The next two blocks of Python on the page on fusion methods hold a surrogate and a strategy.
SURROGATE, STRATEGY = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1:3]

METHOD_LINE = 'METHODS["mean-exchange"] = '
SURROGATE_LINE = 'SURROGATES["triangle"] = '
STRATEGY_LINE = 'STRATEGIES["catch-up"] = CatchUp'


def search_path(packages: Path | None) -> str:
    """Return the variable ``PYTHONPATH`` with a folder of packages, or without."""
    own = os.environ.get("PYTHONPATH")
    return os.pathsep.join(filter(None, [packages and str(packages), own]))


def write_package(
    folder: Path,
    name: str = "spike-mix",
    version: str = "1.2",
    *,
    code: str | None = None,
    methods: str = "mean-exchange",
    surrogates: str = "triangle",
    strategies: str = "catch-up",
) -> Path:
    """Write a package with the entries of the page; return the file of its code.

    Args:
        folder: the folder of packages, such as ``site-packages``.
        name: name of the package.
        version: version of the package.
        code: content of its module; None takes the code of the page.
        methods: name of the method; empty for none.
        surrogates: name of the surrogate; empty for none.
        strategies: name of the strategy; empty for none.
    """
    assert METHOD_LINE in TEXT
    assert SURROGATE_LINE in SURROGATE
    page = TEXT.replace(METHOD_LINE, "METHOD = ") + SURROGATE.replace(SURROGATE_LINE, "SHAPE = ")
    assert STRATEGY_LINE in STRATEGY
    page += STRATEGY.replace(STRATEGY_LINE, "")
    module = name.replace("-", "_")
    (folder / module).mkdir(parents=True, exist_ok=True)
    path = folder / module / "__init__.py"
    path.write_text(page if code is None else code)
    about = folder / f"{module}-{version}.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = {"methods": (methods, "METHOD"), "surrogates": (surrogates, "SHAPE")}
    groups["strategies"] = (strategies, "CatchUp")
    (about / "entry_points.txt").write_text(
        "".join(
            f"[avsnn.{group}]\n{entry} = {module}:{value}\n"
            for group, (entry, value) in groups.items()
            if entry
        )
    )
    return path
