"""The errors of transfers."""


class TransferError(Exception):
    """A file that cannot be brought; the message is the recorded reason of the failure."""


class ServerUnavailableError(TransferError):
    """The server is busy, out of reach, or gives no more; another server may have the file.

    Attributes:
        again: whether the same server may give the file in a moment.
        wait_s: how long the server asks to wait, in s.
    """

    def __init__(self, reason: str, *, again: bool = True, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.again = again
        self.wait_s = wait_s
