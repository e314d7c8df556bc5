"""One file from a real TLS server on this machine that cuts, changes its mind, or lies."""

import dataclasses
from functools import partial
from pathlib import Path

import pytest

from avsnn.datasets_manifest import MediaFile
from tests.pipeline.transfer.server import Answer, Server, bring, cut, fetch_of, serve, status

BODY = bytes(range(256)) * 20


def ranges(server: Server) -> list[str | None]:
    return [asked.headers.get("Range") for asked in server.asked]


def test_a_cut_download_goes_on_at_the_byte_where_it_was_cut(
    tmp_path: Path, server: Server
) -> None:
    file = server.holds("a.wav", BODY)
    server.tell("/files/a.wav", cut(1000), cut(500))
    assert bring(fetch_of(tmp_path, [file], {"url": server.url()}), file) == BODY
    assert ranges(server) == [None, "bytes=1000-", "bytes=1500-"]
    assert [asked.headers.get("If-Range") for asked in server.asked] == [None, '"1"', '"1"']
    assert sum(asked.sent for asked in server.asked) == len(BODY)
    assert list((tmp_path / "state" / "downloads").iterdir()) == []


def test_a_later_run_goes_on_with_what_an_earlier_one_left(tmp_path: Path, server: Server) -> None:
    file = server.holds("a.wav", BODY)
    server.tell("/files/a.wav", cut(1000), *[status(503)] * 4)
    reason = bring(fetch_of(tmp_path, [file], {"url": server.url()}), file)
    assert reason == "cannot be downloaded: localhost: answered 503 (4 attempts)"
    assert bring(fetch_of(tmp_path, [file], {"url": server.url()}), file) == BODY
    assert ranges(server)[-1] == "bytes=1000-"


def test_a_line_that_is_cut_again_and_again_gets_there_while_it_gets_on(
    tmp_path: Path, server: Server
) -> None:
    file = server.holds("a.wav", BODY)
    server.tell("/files/a.wav", *[cut(500)] * 10)
    assert bring(fetch_of(tmp_path, [file], {"url": server.url()}), file) == BODY
    assert sum(asked.sent for asked in server.asked) == len(BODY)


def test_a_file_that_changed_in_between_is_fetched_anew(tmp_path: Path, server: Server) -> None:
    server.holds("a.wav", b"old" * 1000, etag='"old"')
    file = dataclasses.replace(server.holds("a.wav", BODY, etag='"new"'), sha256=None)
    stage = fetch_of(tmp_path, [file], {"url": server.url()})
    earlier = stage.partial(file)
    earlier.restart('"old"')
    earlier.data.write_bytes(b"old" * 100)
    assert bring(stage, file) == BODY
    assert ranges(server) == ["bytes=300-"]


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
def test_an_answer_that_does_not_continue_starts_over(
    tmp_path: Path, server: Server, answer: Answer
) -> None:
    """Also where no checksum would notice."""
    server.holds("a.wav", BODY)
    file = MediaFile("a.wav", None, None)
    server.tell("/files/a.wav", cut(1000), answer)
    assert bring(fetch_of(tmp_path, [file], {"url": server.url()}), file) == BODY


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_without_a_mark_of_its_version_a_download_starts_over(
    tmp_path: Path, server: Server, etag: str
) -> None:
    file = server.holds("a.wav", BODY, etag=etag)
    server.tell("/files/a.wav", cut(1000))
    assert bring(fetch_of(tmp_path, [file], {"url": server.url()}), file) == BODY
    assert ranges(server) == [None, None]


def test_what_a_power_cut_spoilt_is_fetched_anew(tmp_path: Path, server: Server) -> None:
    file = server.holds("a.wav", BODY)
    stage = fetch_of(tmp_path, [file], {"url": server.url()})
    stage.partial(file).restart('"1"')
    stage.partial(file).data.write_bytes(bytes(1000))
    assert bring(stage, file) == BODY
    assert ranges(server) == ["bytes=1000-", None]


def test_what_had_arrived_whole_before_a_kill_is_not_asked_for_again(
    tmp_path: Path, server: Server
) -> None:
    file = server.holds("a.wav", BODY)
    stage = fetch_of(tmp_path, [file], {"url": server.url()})
    stage.partial(file).restart("")
    stage.partial(file).data.write_bytes(BODY)
    assert bring(stage, file) == BODY
    assert server.asked == []


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
def test_a_whole_but_wrong_file_is_refused_once_and_not_kept(
    tmp_path: Path, server: Server, body: bytes, reason: str
) -> None:
    file = server.holds("a.wav", BODY)
    server.holds("a.wav", body)
    told = bring(fetch_of(tmp_path, [file], {"url": server.url()}), file)
    assert isinstance(told, str)
    assert told.startswith(f"cannot be downloaded: localhost: {reason}")
    assert len(server.asked) == 1
    assert list((tmp_path / "state" / "downloads").iterdir()) == []


def test_a_server_that_compresses_unasked_is_refused(tmp_path: Path, server: Server) -> None:
    file = server.holds("a.wav", BODY)
    server.tell("/files/a.wav", status(200, b"zip", Content_Encoding="gzip"))
    told = bring(fetch_of(tmp_path, [file], {"url": server.url()}), file)
    assert told == "cannot be downloaded: localhost: sends it compressed, though not asked to"
    assert server.asked[0].headers["Accept-Encoding"] == "identity"


def test_a_download_that_fills_the_disk_gives_its_space_back(
    tiny_disk: Path, server: Server
) -> None:
    file = server.holds("a.wav", bytes(2 << 20))
    with pytest.raises(OSError, match="No space left"):
        bring(fetch_of(tiny_disk, [file], {"url": server.url()}), file)
    assert not list(tiny_disk.rglob("*.part"))
