"""The entry point of ``python -m avsnn``."""

from avsnn.cli.main import main

if __name__ == "__main__":
    main()
