"""Downloads a file from a real TLS server that cuts connections or sends other bytes."""

import dataclasses
from functools import partial
from pathlib import Path

import pytest

from avsnn.datasets_manifest import MediaFile
from tests.pipeline.transfer.server import (
    Answer,
    Handler,
    Server,
    cut,
    fetch_file,
    fetch_of,
    serve,
    status,
)

BODY = bytes(range(256)) * 20


def requested_ranges(server: Server) -> list[str | None]:
    return [request.headers.get("Range") for request in server.received]


def test_a_cut_download_continues_at_the_byte_of_the_cut(tmp_path: Path, server: Server) -> None:
    file = server.add_file("a.wav", BODY)
    server.plan_answers("/files/a.wav", cut(1000), cut(500))
    assert fetch_file(fetch_of(tmp_path, [file], {"url": server.url()}), file) == BODY
    assert requested_ranges(server) == [None, "bytes=1000-", "bytes=1500-"]
    assert [request.headers.get("If-Range") for request in server.received] == [None, '"1"', '"1"']
    assert sum(request.sent for request in server.received) == len(BODY)
    assert list((tmp_path / "state" / "downloads").iterdir()) == []


def test_a_later_run_continues_the_download_of_an_earlier_run(
    tmp_path: Path, server: Server
) -> None:
    file = server.add_file("a.wav", BODY)
    server.plan_answers("/files/a.wav", cut(1000), *[status(503)] * 4)
    reason = fetch_file(fetch_of(tmp_path, [file], {"url": server.url()}), file)
    assert reason == "cannot be downloaded: localhost: answered 503 (4 attempts)"
    assert fetch_file(fetch_of(tmp_path, [file], {"url": server.url()}), file) == BODY
    assert requested_ranges(server)[-1] == "bytes=1000-"


def test_a_download_that_is_cut_many_times_finishes_as_long_as_bytes_arrive(
    tmp_path: Path, server: Server
) -> None:
    file = server.add_file("a.wav", BODY)
    server.plan_answers("/files/a.wav", *[cut(500)] * 10)
    assert fetch_file(fetch_of(tmp_path, [file], {"url": server.url()}), file) == BODY
    assert sum(request.sent for request in server.received) == len(BODY)


def test_a_file_that_changed_since_the_cut_is_downloaded_anew(
    tmp_path: Path, server: Server
) -> None:
    server.add_file("a.wav", b"old" * 1000, etag='"old"')
    file = dataclasses.replace(server.add_file("a.wav", BODY, etag='"new"'), sha256=None)
    stage = fetch_of(tmp_path, [file], {"url": server.url()})
    earlier = stage.partial(file)
    earlier.restart('"old"')
    earlier.data.write_bytes(b"old" * 100)
    assert fetch_file(stage, file) == BODY
    assert requested_ranges(server) == ["bytes=300-"]


@pytest.mark.parametrize(
    "answer",
    [
        partial(serve, ranges=False),
        status(416),
        status(206, b"x", Content_Range="bytes 7-7/9"),
        status(206, b"x", Content_Range="bytes 1000-1000/1001", ETag='"2"'),
    ],
    ids=["the whole", "416", "another range", "another version"],
)
def test_an_answer_that_does_not_continue_the_file_starts_the_download_over(
    tmp_path: Path, server: Server, answer: Answer
) -> None:
    """The file has no checksum, so nothing else would notice mixed bytes."""
    server.add_file("a.wav", BODY)
    file = MediaFile("a.wav", None, None)
    server.plan_answers("/files/a.wav", cut(1000), answer)
    assert fetch_file(fetch_of(tmp_path, [file], {"url": server.url()}), file) == BODY


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_a_download_without_a_strong_etag_starts_over(
    tmp_path: Path, server: Server, etag: str
) -> None:
    file = server.add_file("a.wav", BODY, etag=etag)
    server.plan_answers("/files/a.wav", cut(1000))
    assert fetch_file(fetch_of(tmp_path, [file], {"url": server.url()}), file) == BODY
    assert requested_ranges(server) == [None, None]


def test_a_part_that_a_power_cut_damaged_is_downloaded_anew(tmp_path: Path, server: Server) -> None:
    file = server.add_file("a.wav", BODY)
    stage = fetch_of(tmp_path, [file], {"url": server.url()})
    stage.partial(file).restart('"1"')
    stage.partial(file).data.write_bytes(bytes(1000))
    assert fetch_file(stage, file) == BODY
    assert requested_ranges(server) == ["bytes=1000-", None]


def test_a_file_that_had_arrived_whole_before_a_kill_is_not_requested_again(
    tmp_path: Path, server: Server
) -> None:
    file = server.add_file("a.wav", BODY)
    stage = fetch_of(tmp_path, [file], {"url": server.url()})
    stage.partial(file).restart("")
    stage.partial(file).data.write_bytes(BODY)
    assert fetch_file(stage, file) == BODY
    assert server.received == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (BODY[:-1], f"has {len(BODY) - 1} bytes where the manifest says {len(BODY)}"),
        (BODY + b"more", f"has more than the {len(BODY)} bytes of the manifest"),
        (BODY[:-1] + b"x", "does not match the SHA-256 of the manifest (found "),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer, 43 bytes"),
    ],
    ids=["short", "long", "other", "pointer"],
)
def test_a_whole_file_with_wrong_content_is_refused_and_not_kept(
    tmp_path: Path, server: Server, body: bytes, reason: str
) -> None:
    file = server.add_file("a.wav", BODY)
    server.add_file("a.wav", body)
    found_reason = fetch_file(fetch_of(tmp_path, [file], {"url": server.url()}), file)
    assert isinstance(found_reason, str)
    assert found_reason.startswith(f"cannot be downloaded: localhost: {reason}")
    assert len(server.received) == 1
    assert list((tmp_path / "state" / "downloads").iterdir()) == []


def test_a_compressed_answer_is_refused(tmp_path: Path, server: Server) -> None:
    file = server.add_file("a.wav", BODY)
    server.plan_answers("/files/a.wav", status(200, b"zip", Content_Encoding="gzip"))
    found_reason = fetch_file(fetch_of(tmp_path, [file], {"url": server.url()}), file)
    assert (
        found_reason == "cannot be downloaded: localhost: sends it compressed, though not asked to"
    )
    assert server.received[0].headers["Accept-Encoding"] == "identity"


def test_a_download_that_fills_the_disk_removes_its_partial_file(
    tiny_disk: Path, server: Server
) -> None:
    file = server.add_file("a.wav", bytes(2 << 20))
    with pytest.raises(OSError, match="No space left"):
        fetch_file(fetch_of(tiny_disk, [file], {"url": server.url()}), file)
    assert not list(tiny_disk.rglob("*.part"))


def test_a_rest_that_is_shorter_than_the_server_says_is_no_whole_file(
    tmp_path: Path, server: Server
) -> None:
    file = server.add_file("a.wav", BODY)
    # Nobody published the size or the checksum, so only the server knows how long the file is.
    file = dataclasses.replace(file, size=None, sha256=None)

    def part(handler: Handler) -> None:
        content_range = f"bytes 1000-1199/{len(BODY)}"
        handler.start(206, 200, ETag='"1"', Content_Range=content_range)
        handler.send(BODY[1000:1200])

    server.plan_answers("/files/a.wav", cut(1000), part)
    assert fetch_file(fetch_of(tmp_path, [file], {"url": server.url()}), file) == BODY
    assert requested_ranges(server) == [None, "bytes=1000-", "bytes=1200-"]
