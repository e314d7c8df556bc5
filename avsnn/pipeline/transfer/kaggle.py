"""Downloads of data sets that are published on Kaggle."""

from pathlib import Path

from avsnn.errors import RunError, UserError


def download_from_kaggle(handle: str) -> Path:
    """Download a data set from Kaggle, and return the folder of the data set.

    kagglehub does the download, keeps the folder for later runs, and continues a download that was
    cut.

    Args:
        handle: name of the data set on Kaggle, ``owner/name``.

    Raises:
        UserError: kagglehub is not installed.
        RunError: Kaggle did not give the data set.
    """
    try:
        import kagglehub
    except ImportError:
        raise UserError(
            f"{handle} is downloaded from Kaggle by kagglehub, which is not installed: "
            "run 'pip install kagglehub', or give the folder that holds the data set as "
            "--source."
        ) from None
    try:
        return Path(kagglehub.dataset_download(handle))
    # The errors of kagglehub come from several libraries and have no common base class.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"{handle} cannot be downloaded from Kaggle ({reason}). Try again, or download the "
            "data set by hand and give its folder as --source."
        ) from None
