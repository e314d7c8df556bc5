"""The errors of a transfer."""


class TransferError(Exception):
    """A file that cannot be fetched; the message is the recorded reason of the failure."""


class ServerUnavailableError(TransferError):
    """A server is busy, out of reach, or gives no more; another server may have the file.

    Attributes:
        can_retry: whether the same server may give the file in a moment.
        wait_s: how long the server asks to wait, in s.
        is_reached: whether the server answered; without an answer, nothing is known about the file.
    """

    def __init__(
        self,
        reason: str,
        *,
        can_retry: bool = True,
        wait_s: float = 0.0,
        is_reached: bool = True,
    ) -> None:
        super().__init__(reason)
        self.is_reached = is_reached
        self.can_retry = can_retry
        self.wait_s = wait_s
