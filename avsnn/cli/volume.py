"""How much a command prints, as the person asked with --quiet and --verbose."""

QUIET = ("-q", "--quiet")
VERBOSE = ("-v", "--verbose")


class Volume:
    """What one command prints beside its results.

    Attributes:
        quiet: whether to leave out the course of the work.
        verbose: whether to print where in the code an error came from.
    """

    quiet = False
    verbose = False


volume = Volume()
