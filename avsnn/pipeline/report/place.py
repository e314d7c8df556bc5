"""Where the page of a report goes."""

from collections.abc import Sequence
from pathlib import Path

from avsnn.errors import UserError

NAME = "report.html"


def choose_place(out: Path | None, runs: Sequence[Path]) -> Path:
    """Return the path of the page.

    Args:
        out: the path that was asked for; None takes a place beside the measures of one run, and
            the current folder for several runs.
        runs: the run folders.

    Raises:
        UserError: the path that was asked for cannot be a page.
    """
    if out is None:
        return runs[0] / "report" / NAME if len(runs) == 1 else Path(NAME)
    try:
        out.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}.") from None
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give the path of a file, such as {out / NAME}.")
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out} must end in .html, because the report is an HTML page.")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}; make the folder first.")
    return out
