"""The entry point of ``python -m avsnn``."""

import os
import sys
from contextlib import suppress

if __name__ == "__main__":
    # With -m, Python puts the current folder first in its search path. A file `struct.py` or
    # `yaml.py` there would be executed in place of the module of the library. A folder that was
    # removed is not in the search path.
    with suppress(FileNotFoundError):
        # `pathlib` would be imported from the current folder.
        if not sys.flags.safe_path and sys.path[0] == os.getcwd():  # noqa: PTH109
            del sys.path[0]

    from avsnn.cli.main import main

    main()
