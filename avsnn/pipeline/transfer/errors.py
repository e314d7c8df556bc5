"""The errors of a transfer, and the words for damaged content."""

import errno

# Error numbers of a file system for a place that no file has. A false size in a header makes a
# library seek to such a place.
FALSE_PLACE_ERRNOS = (errno.EINVAL, errno.EOVERFLOW)


def words_on_damage(error: Exception) -> str:
    """Return one line on an error that a library raised for damaged content.

    Libraries that read a container raise errors of many types for damaged bytes, such as
    BadZipFile, zlib.error, struct.error, UnicodeDecodeError and RuntimeError.

    Raises:
        OSError: the file system caused the error, and not the content.
    """
    # h5py and gzip raise an OSError without a number for damaged content.
    number = error.errno if isinstance(error, OSError) else None
    if number and number not in FALSE_PLACE_ERRNOS:
        raise error
    return " ".join(str(error).split())[:200] or type(error).__name__


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
