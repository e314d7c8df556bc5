"""A data set that is published on Kaggle."""

from pathlib import Path

from avsnn.errors import RunError, UserError


def download_from_kaggle(handle: str) -> Path:
    """The folder of a Kaggle data set, downloaded; kagglehub keeps it and goes on after a cut.

    Raises:
        UserError: kagglehub is not installed.
        RunError: Kaggle did not give it.
    """
    try:
        import kagglehub
    except ImportError:
        raise UserError(
            f"{handle} is downloaded from Kaggle by kagglehub, which is not installed: "
            "run \"pip install 'avsnn[kaggle]'\", or give the folder that holds it as --source."
        ) from None
    try:
        return Path(kagglehub.dataset_download(handle))
    # Its errors have no common base, and come from several libraries.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"{handle} cannot be downloaded from Kaggle ({reason}). Try again, or download it by "
            "hand and give its folder as --source."
        ) from None
