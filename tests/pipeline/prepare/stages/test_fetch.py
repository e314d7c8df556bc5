"""The fetch stage: sources in order, kills, links, secrets; servers are real, on this machine."""

import hashlib
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from avsnn.datasets_manifest import MediaFile
from avsnn.errors import RunError
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.prepare.build import build_stages
from avsnn.pipeline.prepare.estimate import missing_bytes
from avsnn.pipeline.prepare.prepare import prepare
from avsnn.pipeline.prepare.request import PrepareRequest
from avsnn.pipeline.transfer.http import HttpClient
from tests.conftest import PROJECT, NoProgress
from tests.pipeline.transfer.server import (
    SECRET,
    FakeLfsServer,
    Handler,
    Server,
    bring,
    described,
    fetch_of,
    redirect,
    run_all,
    serve,
    status,
)

BODY = b"sound" * 1000
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def test_a_file_comes_from_the_first_source_that_has_it_right(
    tmp_path: Path, server: Server, lfs: FakeLfsServer
) -> None:
    file = lfs.holds("a.wav", BODY)
    server.tell("/mirror/a.wav", status(404))
    server.tell("/raw/a.wav", status(200, POINTER))
    server.tell("/media/a.wav", status(403))
    server.tell("/old/a.wav", status(200, BODY[:-1] + b"x"))
    sources = [{"url": server.url(f"/{name}/")} for name in ("mirror", "raw", "media", "old")]
    stage = fetch_of(tmp_path, [file], *sources, {"lfs": server.url(lfs.path)})
    assert bring(stage, file) == BODY
    names = [asked.path.split("/")[1] for asked in server.asked]
    assert names == ["mirror", "raw", "media", "old", "repo.git", "objects"]


def test_a_file_that_no_source_has_right_is_a_failure_that_says_what_each_gave(
    tmp_path: Path, server: Server
) -> None:
    file = server.holds("a.wav", BODY)
    server.tell("/1/a.wav", status(404))
    server.tell("/2/a.wav", status(200, POINTER))
    server.tell("/3/a.wav", status(200, BODY[:-1] + b"x"))
    sources = [{"url": server.url(f"/{name}/")} for name in (1, 2, 3)]
    assert bring(fetch_of(tmp_path, [file], *sources), file) == (
        "cannot be downloaded: localhost: answered 404; localhost: is a Git LFS pointer, 63 bytes; "
        "'git lfs pull' brings the file; localhost: does not match the SHA-256 of the manifest "
        f"(found {hashlib.sha256(BODY[:-1] + b'x').hexdigest()[:12]}…)"
    )


def test_a_source_that_stays_away_is_not_asked_for_all_the_other_files(
    tmp_path: Path, server: Server
) -> None:
    files = [server.holds(f"{place}.wav", BODY) for place in range(8)]
    for file in files:
        server.always[f"/mirror/{file.path}"] = status(503)
    sources = [{"url": server.url("/mirror/")}, {"url": server.url()}]
    stage = fetch_of(tmp_path, files, *sources)
    assert [bring(stage, file) for file in files] == [BODY] * 8
    assert [file.path for file in files if server.requests(f"/mirror/{file.path}")] == [
        "0.wav",
        "1.wav",
        "2.wav",
    ]


def test_what_one_source_began_the_next_does_not_mix_with_its_own(
    tmp_path: Path, server: Server
) -> None:
    file = replace(server.holds("a.wav", BODY, etag='"right"'), sha256=None)
    server.files["/mirror/a.wav"], server.etags["/mirror/a.wav"] = b"other" * 1000, '"other"'
    server.tell("/mirror/a.wav", lambda handler: serve(handler, cut=1000), *[status(503)] * 4)
    sources = [{"url": server.url("/mirror/")}, {"url": server.url()}]
    assert bring(fetch_of(tmp_path, [file], *sources), file) == BODY


BIG = random.Random(0).randbytes(24 << 20)


def fetch_big(folder: str, url: str) -> None:
    """What the process does that is killed."""
    run_all(fetch_of(Path(folder), [described("big.bin", BIG)], {"url": url}))


def test_a_download_killed_in_the_middle_goes_on_in_the_next_run(
    tmp_path: Path, server: Server
) -> None:
    """More is sent than the sockets between can hold, so that some was written for certain."""
    file = server.holds("big.bin", BIG)
    sent, killed = threading.Event(), threading.Event()

    def stall(handler: Handler) -> None:
        serve(handler, cut=18 << 20)
        sent.set()
        killed.wait()

    server.tell("/files/big.bin", stall)
    words = "from tests.pipeline.prepare.stages.test_fetch import *; fetch_big(*sys.argv[1:])"
    command = [sys.executable, "-c", words, str(tmp_path), server.url()]
    with subprocess.Popen(command, cwd=PROJECT) as process:
        assert sent.wait(60)
        process.send_signal(signal.SIGKILL)
    killed.set()
    assert process.returncode == -signal.SIGKILL
    stage = fetch_of(tmp_path, [file], {"url": server.url()})
    kept = stage.partial(file).size
    assert 4 << 20 < kept <= 18 << 20
    assert run_all(stage).written == 1
    second = server.asked[-1]
    assert (second.headers["Range"], second.sent) == (f"bytes={kept}-", len(BIG) - kept)
    assert (tmp_path / "raw" / "big.bin").read_bytes() == BIG
    assert not list((tmp_path / "state" / "downloads").iterdir())


class Interrupt(NoProgress):
    """Ctrl-C as the first unit ends."""

    def advance(self, count: int = 1, note: str = "") -> None:
        raise KeyboardInterrupt


def test_an_interrupt_does_not_sit_out_what_a_server_asks_to_wait(
    tmp_path: Path, server: Server
) -> None:
    stages = build_stages(
        "av-digits", PrepareRequest(settings=PrepareSettings(limit=1)), root=tmp_path
    )
    files = [server.holds(name, BODY) for name in ("a.wav", "b.wav")]
    refused = threading.Event()

    def refuse(handler: Handler) -> None:
        status(503, Retry_After="60")(handler)
        refused.set()

    def serve_then(handler: Handler) -> None:
        refused.wait()
        serve(handler)

    server.tell("/files/a.wav", serve_then)
    server.always["/files/b.wav"] = refuse
    fetch = replace(fetch_of(stages.folder, files, {"url": server.url()}), http=HttpClient())

    def interrupted() -> None:
        with suppress(KeyboardInterrupt):
            prepare(replace(stages, fetch=fetch), workers=0, progress=Interrupt())

    thread = threading.Thread(target=interrupted)
    thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert len(server.requests("/files/b.wav")) == 1


def test_what_is_left_to_fetch_counts_what_has_arrived_of_a_file(tmp_path: Path) -> None:
    stages = build_stages(
        "av-digits", PrepareRequest(settings=PrepareSettings(limit=1)), root=tmp_path
    )
    (clip,) = stages.fetch.clips
    before = missing_bytes(stages)
    stages.fetch.partial(clip.audio).restart("")
    stages.fetch.partial(clip.audio).data.write_bytes(bytes(100))
    assert missing_bytes(stages) == before - 100


def test_secrets_are_told_to_nobody(
    tmp_path: Path, server: Server, lfs: FakeLfsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither those of an address, nor of a redirect, nor those that Git LFS hands out."""
    caplog.set_level(logging.DEBUG)
    files = [lfs.holds(f"{place}.wav", b"%d" % place) for place in range(6)]
    objects = [f"/objects/{file.sha256}?token={SECRET}" for file in files]
    server.tell(objects[0], status(403))
    server.tell(objects[1], redirect(f"http://localhost/?token={SECRET}"))
    server.tell(objects[2], *[redirect(f"https://localhost:{SECRET}/")] * 4)
    server.tell(objects[3], *[redirect(f"https://localhost:1/?token={SECRET}")] * 4)
    lfs.errors[str(files[4].sha256)] = 500
    sources = [
        {"url": server.url("/none/", user=f"me:{SECRET}@")},
        {"lfs": server.url(lfs.path, user=f"me:{SECRET}@")},
    ]
    stage = fetch_of(tmp_path, files, *sources)
    summary = run_all(stage)
    assert {asked.headers.get("Authorization") is None for asked in server.asked} == {True, False}
    assert len(summary.failures) == 5
    told = [stage.journal.read_text(), repr(summary), repr(stage.http), caplog.text]
    assert not any(SECRET in text for text in told)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def copy_of(tmp_path: Path, file: MediaFile, source: Path) -> bytes | str:
    stage = fetch_of(tmp_path, [file], {"url": "https://localhost/"})
    return bring(replace(stage, source=source), file)


def test_a_source_folder_may_hold_links_but_no_pointers_or_devices(
    tmp_path: Path, source: Path
) -> None:
    file = described("a.wav", BODY)
    (tmp_path / "elsewhere").write_bytes(BODY)
    (source / "a.wav").symlink_to(tmp_path / "elsewhere")
    assert copy_of(tmp_path, file, source) == BODY
    (source / "a.wav").unlink()
    (source / "a.wav").write_bytes(POINTER)
    assert str(copy_of(tmp_path, file, source)).startswith("is a Git LFS pointer, 63 bytes")
    (source / "a.wav").unlink()
    os.mkfifo(source / "a.wav")
    assert copy_of(tmp_path, file, source) == "is missing from the source folder"


def test_nothing_is_written_or_removed_through_a_link_out_of_the_folder(
    tmp_path: Path, server: Server
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.wav").write_bytes(b"mine")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "sound").symlink_to(outside)
    files = [server.holds("sound/a.wav", BODY), server.holds("sound/b.wav", BODY)]
    with pytest.raises(RunError, match="is a link that leads out of"):
        run_all(fetch_of(tmp_path, files, {"url": server.url()}))
    assert [path.read_bytes() for path in outside.iterdir()] == [b"mine"]


def test_the_data_sets_folder_itself_may_be_a_link(tmp_path: Path, server: Server) -> None:
    file = server.holds("sound/a b#1?.wav", BODY)
    server.files["/files/sound/a%20b%231%3F.wav"] = BODY
    server.etags["/files/sound/a%20b%231%3F.wav"] = ""
    (tmp_path / "big disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "big disk")
    assert run_all(fetch_of(tmp_path / "data", [file], {"url": server.url()})).written == 1
    assert (tmp_path / "big disk" / "raw" / file.path).read_bytes() == BODY
