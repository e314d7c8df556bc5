"""The two ways a command ends badly on purpose."""


class UserError(Exception):
    """Bad input. One sentence: what is wrong, where, what to do. Exit code 2."""


class RunError(Exception):
    """The work itself did not succeed, for instance too many clips failed. Exit code 1."""
