"""The errors by which a command ends on purpose before its work is done; each has an exit code."""


class UserError(Exception):
    """Bad input, exit code 2. The message is one sentence: what is wrong, where, and what to do."""


class RunError(Exception):
    """The work itself did not succeed, for instance too many clips failed. Exit code 1."""


class PreemptedError(Exception):
    """SIGTERM came. Finished work is saved, and the same command can continue. Exit code 75."""
