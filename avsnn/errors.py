"""The errors by which a command ends on purpose, each with an exit code; and a warning."""


class UserError(Exception):
    """Bad input, exit code 2. The message is one sentence: what is wrong, where, and what to do."""


class RunError(Exception):
    """The work itself did not succeed, for instance too many clips failed. Exit code 1."""


class InterruptError(Exception):
    """Ctrl-C came, and the message says what is saved. Exit code 130."""


class PreemptedError(BaseException):
    """SIGTERM came, and the message says what is saved. Exit code 75.

    The class is no `Exception`, like `KeyboardInterrupt`: SIGTERM can come at any moment, also in
    code that turns every `Exception` into a sentence about a damaged file.
    """


class PluginWarning(UserWarning):
    """A run goes on with another version of a package than it was trained with."""
