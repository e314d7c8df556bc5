"""The entry point of ``python -m avsnn``."""

import os
import sys

if __name__ == "__main__":
    # With -m, Python puts the current folder first in its search path. A file `struct.py` or
    # `yaml.py` there would be executed in place of the module of the library.
    if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]

    from avsnn.cli.main import main

    main()
