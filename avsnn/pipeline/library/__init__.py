"""avsnn in Python: what ``import avsnn`` offers beside the command line."""
