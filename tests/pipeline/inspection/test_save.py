"""Writes pictures to files, also where the write fails in the middle."""

import resource
import signal
from pathlib import Path

import cv2
import pytest

from avsnn.errors import UserError
from avsnn.pipeline.inspection.save import SUFFIXES, save_picture
from avsnn.pipeline.pictures import new_figure


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PNG"])
def test_every_kind_of_picture_is_written(tmp_path: Path, suffix: str) -> None:
    figure, axes = new_figure(width=3, height=2)
    axes.plot([0, 1], [0, 1])
    path = tmp_path / f"picture{suffix}"
    save_picture(figure, path)
    start = path.read_bytes()[:5]
    if suffix in (".pdf", ".svg"):
        assert start == {".pdf": b"%PDF-", ".svg": b"<?xml"}[suffix]
    else:
        picture = cv2.imread(str(path))
        assert picture is not None
        assert picture.shape == (260, 390, 3)


def test_a_write_that_fails_leaves_the_old_picture_and_no_other_file(tmp_path: Path) -> None:
    figure, _ = new_figure(width=3, height=2)
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(UserError, match=r"picture\.png cannot be written: File too large"):
            save_picture(figure, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
