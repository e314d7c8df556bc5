"""Standard output and standard error that never end the work.

A stream may be closed or full, or its reader may have gone, and the encoding of the stream may lack
a character. The work goes on in all of these cases.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

OUTPUT, ERROR = 1, 2


class TolerantStream(io.FileIO):
    """A stream that drops what cannot be written, and remembers the first reason.

    Attributes:
        failure: why something could not be written; None if all was written.
    """

    failure: OSError | None = None

    def write(self, data: Buffer) -> int:
        """Write bytes; after a failure, drop the bytes."""
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes


def guard_streams() -> TolerantStream:
    """Replace standard output and standard error by streams that never raise; return the output."""
    for number in (0, OUTPUT, ERROR):
        try:
            os.fstat(number)
        except OSError:
            # A file that is opened later would otherwise get the number of the closed stream, and
            # would then receive what commands print.
            os.open(os.devnull, os.O_RDWR)
    output = TolerantStream(OUTPUT, "w", closefd=False)
    error = TolerantStream(ERROR, "w", closefd=False)
    sys.stdout = _as_text(output, like=sys.stdout)
    sys.stderr = _as_text(error, like=sys.stderr)
    return output


def why_lost(output: TolerantStream) -> str:
    """Return why results did not reach standard output; empty if all results did.

    A reader that closes its pipe, such as ``head``, has read all that it wants.
    """
    sys.stdout.flush()
    failure = output.failure
    if failure is None or failure.errno == errno.EPIPE:
        return ""
    return failure.strerror or str(failure)


def printable(text: str) -> str:
    r"""Return a text without characters that change what a terminal shows.

    Names of files, classes and clips come from anyone. Control characters, line breaks and
    characters that turn the direction of a text become visible escapes such as ``\x1b``.
    """
    return text.translate(_ESCAPES)


def _as_text(raw: TolerantStream, *, like: TextIO | None) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(like, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=raw.isatty() or raw.fileno() == ERROR,
    )


_CONTROLS = (
    *(range(0x20), range(0x7F, 0xA0), range(0x2028, 0x202F), range(0x2066, 0x206A)),
    range(0xD800, 0xE000),
)
_ESCAPES = {n: chr(n).encode("unicode_escape").decode() for part in _CONTROLS for n in part}
