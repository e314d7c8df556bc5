"""The ways a command ends before its work is done, on purpose."""


class UserError(Exception):
    """Bad input. One sentence: what is wrong, where, what to do. Exit code 2."""


class RunError(Exception):
    """The work itself did not succeed, for instance too many clips failed. Exit code 1."""


class PreemptedError(Exception):
    """SIGTERM came; what was done is saved and the same command can go on. Exit code 75."""
