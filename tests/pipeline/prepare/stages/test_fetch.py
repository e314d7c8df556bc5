"""Runs the stage fetch against real servers on this machine: sources, kills, links, secrets."""

import gzip
import hashlib
import logging
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from avsnn.datasets_manifest import MediaFile
from avsnn.errors import RunError
from avsnn.pipeline.engine.journal import Record
from avsnn.pipeline.engine.plan import plan
from avsnn.pipeline.engine.progress import NoProgress
from avsnn.pipeline.engine.run_units import run_units
from avsnn.pipeline.engine.stage import records
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.prepare.build_stages import build_stages
from avsnn.pipeline.prepare.estimate import missing_bytes
from avsnn.pipeline.prepare.prepare import prepare
from avsnn.pipeline.prepare.request import PrepareRequest, make_request
from avsnn.pipeline.transfer.http import HttpClient
from tests.conftest import PROJECT, Command
from tests.pipeline.transfer.server import (
    SECRET,
    FakeLfsServer,
    Handler,
    Server,
    described,
    fetch_file,
    fetch_of,
    redirect,
    run_all,
    serve,
    status,
)

BODY = b"sound" * 1000
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def test_a_file_comes_from_the_first_source_that_has_the_right_content(
    tmp_path: Path, server: Server, lfs: FakeLfsServer
) -> None:
    file = lfs.add_file("a.wav", BODY)
    server.plan_answers("/mirror/a.wav", status(404))
    server.plan_answers("/raw/a.wav", status(200, POINTER))
    server.plan_answers("/media/a.wav", status(403))
    server.plan_answers("/old/a.wav", status(200, BODY[:-1] + b"x"))
    sources = [{"url": server.url(f"/{name}/")} for name in ("mirror", "raw", "media", "old")]
    stage = fetch_of(tmp_path, [file], *sources, {"lfs": server.url(lfs.path)})
    assert fetch_file(stage, file) == BODY
    names = [request.path.split("/")[1] for request in server.received]
    assert names == ["mirror", "raw", "media", "old", "repo.git", "objects"]


def test_a_file_that_no_source_has_is_a_failure_with_the_answer_of_each_source(
    tmp_path: Path, server: Server
) -> None:
    file = server.add_file("a.wav", BODY)
    server.plan_answers("/1/a.wav", status(404))
    server.plan_answers("/2/a.wav", status(200, POINTER))
    server.plan_answers("/3/a.wav", status(200, BODY[:-1] + b"x"))
    sources = [{"url": server.url(f"/{name}/")} for name in (1, 2, 3)]
    assert fetch_file(fetch_of(tmp_path, [file], *sources), file) == (
        "cannot be downloaded: localhost: answered 404; localhost: is a Git LFS pointer, 63 bytes; "
        "'git lfs pull' brings the file; localhost: does not match the SHA-256 of the manifest "
        f"(found {hashlib.sha256(BODY[:-1] + b'x').hexdigest()[:12]}…)"
    )


def test_a_source_that_does_not_answer_is_given_up_after_three_files(
    tmp_path: Path, server: Server
) -> None:
    files = [server.add_file(f"{index}.wav", BODY) for index in range(8)]
    for file in files:
        server.always[f"/mirror/{file.path}"] = status(503)
    sources = [{"url": server.url("/mirror/")}, {"url": server.url()}]
    stage = fetch_of(tmp_path, files, *sources)
    assert [fetch_file(stage, file) for file in files] == [BODY] * 8
    assert [file.path for file in files if server.requests(f"/mirror/{file.path}")] == [
        "0.wav",
        "1.wav",
        "2.wav",
    ]


def test_without_a_network_no_file_is_a_failure_and_the_stage_ends_soon(
    tmp_path: Path, server: Server
) -> None:
    files = [server.add_file(f"{index}.wav", BODY) for index in range(40)]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    stage = fetch_of(tmp_path, files, {"url": nobody, "insecure": True})
    with pytest.raises(RunError, match=r"40 of 40 units could not be done.*is there a connection"):
        run_all(stage)
    assert records(stage) == {}
    assert stage.download_sources[0].unavailable < len(files)
    assert run_all(fetch_of(tmp_path, files, {"url": server.url()})).written == 40


def test_bytes_of_two_sources_are_never_mixed_in_a_file(tmp_path: Path, server: Server) -> None:
    file = replace(server.add_file("a.wav", BODY, etag='"right"'), sha256=None)
    server.files["/mirror/a.wav"], server.etags["/mirror/a.wav"] = b"other" * 1000, '"other"'
    server.plan_answers(
        "/mirror/a.wav", lambda handler: serve(handler, cut=1000), *[status(503)] * 4
    )
    sources = [{"url": server.url("/mirror/")}, {"url": server.url()}]
    assert fetch_file(fetch_of(tmp_path, [file], *sources), file) == BODY


BIG = random.Random(0).randbytes(24 << 20)


def fetch_big(folder: str, url: str) -> None:
    """Fetch the big file; the test kills the process that runs this function."""
    run_all(fetch_of(Path(folder), [described("big.bin", BIG)], {"url": url}))


def test_a_download_that_was_killed_continues_in_the_next_run(
    tmp_path: Path, server: Server
) -> None:
    """The server sends more than the sockets can buffer, so some bytes are on the disk for sure."""
    file = server.add_file("big.bin", BIG)
    sent, killed = threading.Event(), threading.Event()

    def stall(handler: Handler) -> None:
        serve(handler, cut=18 << 20)
        sent.set()
        killed.wait()

    server.plan_answers("/files/big.bin", stall)
    program = "from tests.pipeline.prepare.stages.test_fetch import *; fetch_big(*sys.argv[1:])"
    command = [sys.executable, "-c", program, str(tmp_path), server.url()]
    with subprocess.Popen(command, cwd=PROJECT) as process:
        assert sent.wait(60)
        process.send_signal(signal.SIGKILL)
    killed.set()
    assert process.returncode == -signal.SIGKILL
    stage = fetch_of(tmp_path, [file], {"url": server.url()})
    bytes_on_disk = stage.partial(file).size
    assert 4 << 20 < bytes_on_disk <= 18 << 20
    assert run_all(stage).written == 1
    second = server.received[-1]
    assert second.headers["Range"] == f"bytes={bytes_on_disk}-"
    assert second.sent == len(BIG) - bytes_on_disk
    assert (tmp_path / "raw" / "big.bin").read_bytes() == BIG
    assert not list((tmp_path / "state" / "downloads").iterdir())


class Interrupt(NoProgress):
    """Raises KeyboardInterrupt, as Ctrl-C does, when the first unit ends."""

    def advance(self, count: int = 1, note: str = "") -> None:
        raise KeyboardInterrupt


def test_an_interrupt_ends_the_wait_for_a_busy_server(tmp_path: Path, server: Server) -> None:
    stages = build_stages(
        "av-digits", PrepareRequest(settings=PrepareSettings(limit=1)), root=tmp_path
    )
    files = [server.add_file(name, BODY) for name in ("a.wav", "b.wav")]
    refused = threading.Event()

    def refuse(handler: Handler) -> None:
        status(503, Retry_After="60")(handler)
        refused.set()

    def serve_after_refusal(handler: Handler) -> None:
        refused.wait()
        serve(handler)

    server.plan_answers("/files/a.wav", serve_after_refusal)
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


def test_the_bytes_left_to_fetch_leave_out_the_bytes_that_have_arrived(tmp_path: Path) -> None:
    stages = build_stages(
        "av-digits", PrepareRequest(settings=PrepareSettings(limit=1)), root=tmp_path
    )
    (clip,) = stages.fetch.clips
    before = missing_bytes(stages)
    stages.fetch.partial(clip.audio).restart("")
    stages.fetch.partial(clip.audio).data.write_bytes(bytes(100))
    assert missing_bytes(stages) == before - 100


def test_no_secret_appears_in_journals_failures_or_logs(
    tmp_path: Path, server: Server, lfs: FakeLfsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The secrets are in addresses, in redirects and in the answers of Git LFS."""
    caplog.set_level(logging.DEBUG)
    files = [lfs.add_file(f"{index}.wav", b"%d" % index) for index in range(6)]
    objects = [f"/objects/{file.sha256}?token={SECRET}" for file in files]
    server.plan_answers(objects[0], status(403))
    server.plan_answers(objects[1], redirect(f"http://localhost/?token={SECRET}"))
    server.plan_answers(objects[2], *[redirect(f"https://localhost:{SECRET}/")] * 4)
    server.plan_answers(objects[3], *[redirect(f"https://localhost:1/?token={SECRET}")] * 4)
    lfs.errors[str(files[4].sha256)] = 500
    sources = [
        {"url": server.url("/none/", user=f"me:{SECRET}@")},
        {"lfs": server.url(lfs.path, user=f"me:{SECRET}@")},
    ]
    stage = fetch_of(tmp_path, files, *sources)
    summary = run_all(stage)
    with_password = {"Authorization" in request.headers for request in server.received}
    assert with_password == {True, False}
    assert len(summary.failures) == 5
    texts = [stage.journal.read_text(), repr(summary), repr(stage.http), caplog.text]
    assert not any(SECRET in text for text in texts)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def fetch_from_folder(tmp_path: Path, file: MediaFile, source: Path) -> bytes | str:
    stage = fetch_of(tmp_path, [file], {"url": "https://localhost/"})
    return fetch_file(replace(stage, source=source), file)


def test_a_source_folder_may_hold_links_but_no_pointers_or_pipes(
    tmp_path: Path, source: Path
) -> None:
    file = described("a.wav", BODY)
    (tmp_path / "elsewhere").write_bytes(BODY)
    (source / "a.wav").symlink_to(tmp_path / "elsewhere")
    assert fetch_from_folder(tmp_path, file, source) == BODY
    (source / "a.wav").unlink()
    (source / "a.wav").write_bytes(POINTER)
    reason = str(fetch_from_folder(tmp_path, file, source))
    assert reason.startswith("is a Git LFS pointer, 63 bytes")
    (source / "a.wav").unlink()
    os.mkfifo(source / "a.wav")
    assert fetch_from_folder(tmp_path, file, source) == "is missing from the source folder"


def test_nothing_outside_the_folder_is_changed_through_a_link(
    tmp_path: Path, server: Server
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.wav").write_bytes(b"mine")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "sound").symlink_to(outside)
    files = [server.add_file("sound/a.wav", BODY), server.add_file("sound/b.wav", BODY)]
    with pytest.raises(RunError, match="is a link that leads out of"):
        run_all(fetch_of(tmp_path, files, {"url": server.url()}))
    assert [path.read_bytes() for path in outside.iterdir()] == [b"mine"]


def test_the_folder_of_the_data_set_may_be_a_link(tmp_path: Path, server: Server) -> None:
    file = server.add_file("sound/a b#1?.wav", BODY)
    server.files["/files/sound/a%20b%231%3F.wav"] = BODY
    server.etags["/files/sound/a%20b%231%3F.wav"] = ""
    (tmp_path / "big disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "big disk")
    assert run_all(fetch_of(tmp_path / "data", [file], {"url": server.url()})).written == 1
    assert (tmp_path / "big disk" / "raw" / file.path).read_bytes() == BODY


def test_an_archive_that_has_arrived_is_not_downloaded_again_after_a_stop(
    server: Server, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 20
    archive = gzip.compress(content)
    md5 = hashlib.md5(archive, usedforsecurity=False).hexdigest()
    file = MediaFile("a.h5", None, len(archive), md5=md5, packed_as="a.h5.gz")
    server.add_file(file.packed_as, archive)
    stage = fetch_of(tmp_path, [file], {"url": server.url()})
    (unit,) = stage.units()
    # A folder in the place of the file stops the unpacking, as a kill does.
    (tmp_path / "scratch" / file.path).mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        stage.run(unit, tmp_path / "scratch")
    assert fetch_file(stage, file) == content
    assert len(server.requests("/files/a.h5.gz")) == 1
    assert stage.partial(file).size == 0


def test_published_files_may_be_links_whose_change_is_noticed_and_become_copies_again(
    tmp_path: Path, source: Path
) -> None:
    files = [described("a.wav", BODY), described("b/c.wav", BODY[1:])]
    (source / "b").mkdir()
    for file, body in zip(files, (BODY, BODY[1:]), strict=True):
        (source / file.path).write_bytes(body)
    no_choice = replace(fetch_of(tmp_path, files, {"url": "https://localhost/"}), source=source)
    links = replace(no_choice, link=True)
    assert run_all(links).written == 2
    assert all((tmp_path / "raw" / file.path).is_symlink() for file in files)
    assert plan(links).todo_count == plan(no_choice).todo_count == 0
    (source / "a.wav").write_bytes(BODY[:-1] + b"x")
    (failure,) = run_all(links).failures
    assert failure.reason.startswith("does not match the SHA-256 of the manifest")
    assert not (tmp_path / "raw" / "a.wav").is_symlink()
    assert list(plan(replace(no_choice, link=False)).reasons()) == [
        ("b/c.wav", "is a link, and a copy is wanted")
    ]
    run_all(replace(no_choice, link=False))
    copy = tmp_path / "raw" / "b" / "c.wav"
    assert (copy.is_symlink(), copy.read_bytes()) == (False, BODY[1:])


def test_the_choice_of_links_stays_until_another_choice() -> None:
    def asked(link: bool | None, last: PrepareRequest | None = None) -> PrepareRequest:
        return make_request(
            "av-digits",
            PrepareSettings(),
            source=Path("files"),
            store=None,
            max_failures=None,
            link=link,
            last=last,
        )

    chosen = asked(True)
    assert [chosen.link, asked(None, chosen).link, asked(False, chosen).link] == [True, True, False]
    assert asked(None).link is None


def test_links_without_a_folder_are_refused(avsnn: Command, tmp_path: Path) -> None:
    refused = avsnn("prepare", "av-digits", "--root", tmp_path / "data", "--link")
    assert (refused.returncode, refused.stderr.strip()) == (
        2,
        "avsnn: --link needs the folder of the files: add --source DIR.",
    )


def test_a_worker_gets_the_stage_without_clips_and_without_connections(
    tmp_path: Path, source: Path
) -> None:
    request = PrepareRequest(settings=PrepareSettings(), source=source, link=True)
    stage = build_stages("av-digits", request, root=tmp_path).fetch
    unit = next(iter(stage.units()))
    with stage.http:
        sent = pickle.dumps((stage, unit))
    assert len(sent) < 10_000
    there, work = pickle.loads(sent)  # noqa: S301
    (source / unit.name).parent.mkdir(parents=True, exist_ok=True)
    (source / unit.name).write_bytes(b"other bytes")
    stage.state.mkdir(parents=True)
    (here,) = run_units(stage, [unit])
    (record,) = run_units(there, [work])
    assert isinstance(here, Record)
    assert replace(here, seconds=0) == replace(record, seconds=0)
