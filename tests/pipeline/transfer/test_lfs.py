"""Git LFS: a server that speaks the batch API."""

from pathlib import Path
from typing import Any

import pytest

from avsnn.datasets_manifest import MediaFile
from tests.pipeline.transfer.server import (
    SECRET,
    FakeLfsServer,
    Server,
    bring,
    fetch_of,
    run_all,
    serve,
    status,
)

HREF = b'{"objects": [{"oid": "OID", "actions": {"download": {"href": "%s"}}}]}'
BODY = b"sound" * 1000


def source(server: Server, lfs: FakeLfsServer) -> dict[str, Any]:
    return {"lfs": server.url(lfs.path)}


def many(lfs: FakeLfsServer, count: int) -> list[MediaFile]:
    return [lfs.holds(f"{place}.wav", b"%d" % place) for place in range(count)]


def test_a_whole_data_set_takes_a_call_per_hundred_files(
    tmp_path: Path, server: Server, lfs: FakeLfsServer
) -> None:
    files = many(lfs, 250)
    summary = run_all(fetch_of(tmp_path, files, source(server, lfs)))
    assert (summary.written, summary.failed) == (250, 0)
    assert sorted(len(batch["objects"]) for batch in lfs.batches) == [50, 100, 100]
    assert {item["oid"]: item["size"] for batch in lfs.batches for item in batch["objects"]} == {
        file.sha256: file.size for file in files
    }
    for place, file in enumerate(files):
        assert (tmp_path / "raw" / file.path).read_bytes() == b"%d" % place


def test_files_with_the_same_bytes_are_each_brought(
    tmp_path: Path, server: Server, lfs: FakeLfsServer
) -> None:
    files = [lfs.holds(name, BODY) for name in ("a.wav", "b.wav")]
    stage = fetch_of(tmp_path, files, source(server, lfs))
    assert [bring(stage, file) for file in files] == [BODY, BODY]
    assert [len(batch["objects"]) for batch in lfs.batches] == [1]


def test_objects_get_the_headers_and_address_that_the_server_gave(
    tmp_path: Path, server: Server, lfs: FakeLfsServer
) -> None:
    file = lfs.holds("a.wav", BODY)
    path = f"/objects/{file.sha256}?token={SECRET}"
    server.tell(path, lambda handler: serve(handler, cut=1000))
    assert bring(fetch_of(tmp_path, [file], source(server, lfs)), file) == BODY
    first, second = server.requests(path)
    assert first.headers["X-Token"] == second.headers["X-Token"] == SECRET
    assert second.headers["Range"] == "bytes=1000-"


@pytest.mark.parametrize(
    ("life", "calls"),
    [
        ({}, 1),
        ({"expires_at": "2098-01-01T00:00:00Z"}, 1),
        ({"expires_at": "0001-01-01T00:00:00Z"}, 1),
        ({"expires_in": 1}, 2),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 2),
    ],
)
def test_addresses_are_asked_for_again_when_they_expire(
    tmp_path: Path, server: Server, lfs: FakeLfsServer, life: dict[str, object], calls: int
) -> None:
    lfs.life = life
    files = many(lfs, 2)
    stage = fetch_of(tmp_path, files, source(server, lfs))
    assert [bring(stage, file) for file in files] == [b"0", b"1"]
    assert len(lfs.batches) == calls


def test_an_object_the_server_has_not_is_a_failure_and_the_others_come(
    tmp_path: Path, server: Server, lfs: FakeLfsServer
) -> None:
    files = many(lfs, 4)
    lfs.errors[str(files[1].sha256)] = 404
    summary = run_all(fetch_of(tmp_path, files, source(server, lfs)))
    (failure,) = summary.failures
    assert failure.path == "1.wav"
    assert failure.reason == "cannot be downloaded: localhost (LFS): answered 404"
    assert (summary.written, len(lfs.batches)) == (3, 1)


@pytest.mark.parametrize("code", [403, 509])
def test_a_quota_that_is_used_up_is_not_tried_again(
    tmp_path: Path, server: Server, lfs: FakeLfsServer, code: int
) -> None:
    file = lfs.holds("a.wav", BODY)
    server.tell(lfs.path, status(code))
    told = bring(fetch_of(tmp_path, [file], source(server, lfs)), file)
    assert told == f"cannot be downloaded: localhost (LFS): answered {code}"
    assert len(server.asked) == 1


def test_a_busy_endpoint_is_waited_for(tmp_path: Path, server: Server, lfs: FakeLfsServer) -> None:
    file = lfs.holds("a.wav", BODY)
    server.tell(lfs.path, status(429, Retry_After="9"))
    waits: list[float] = []
    assert bring(fetch_of(tmp_path, [file], source(server, lfs), waits=waits), file) == BODY
    assert waits == [9.0]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"<html>", "gave an answer that is not one of Git LFS"),
        (b'{"objects": [{"oid": 5}]}', "gave an answer that is not one of Git LFS"),
        (b'{"objects": []}', "says nothing of the file"),
        (b'{"transfer": "tus", "objects": []}', "offers no basic transfer"),
        (b'{"objects": [{"oid": "OID"}]}', "gave no address that can be used"),
        (HREF % b"http://localhost/", "leads to http:// instead of https://"),
        (HREF % b"https://localhost:hunter2", "gave an address that cannot be read"),
    ],
)
def test_an_answer_that_makes_no_sense_is_a_failure_with_its_reason(
    tmp_path: Path, server: Server, lfs: FakeLfsServer, answer: bytes, reason: str
) -> None:
    file = lfs.holds("a.wav", BODY)
    body = answer.replace(b"OID", str(file.sha256).encode())
    server.tell(lfs.path, status(200, body))
    told = bring(fetch_of(tmp_path, [file], source(server, lfs)), file)
    assert told == f"cannot be downloaded: localhost (LFS): {reason}"


def test_a_file_without_checksum_cannot_be_asked_for(
    tmp_path: Path, server: Server, lfs: FakeLfsServer
) -> None:
    file = MediaFile("a.wav", None, None)
    told = bring(fetch_of(tmp_path, [file], source(server, lfs)), file)
    assert "SHA-256 and size are known" in str(told)
    assert server.asked == []
