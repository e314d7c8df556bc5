"""Downloads files from a server with the batch API of Git LFS."""

from pathlib import Path
from typing import Any

import pytest

from avsnn.datasets_manifest import MediaFile
from tests.pipeline.transfer.server import (
    SECRET,
    FakeLfsServer,
    Server,
    fetch_file,
    fetch_of,
    run_all,
    serve,
    status,
)

HREF = b'{"objects": [{"oid": "OID", "actions": {"download": {"href": "%s"}}}]}'
BODY = b"sound" * 1000


def source(server: Server, lfs: FakeLfsServer) -> dict[str, Any]:
    return {"lfs": server.url(lfs.path)}


def add_files(lfs: FakeLfsServer, count: int) -> list[MediaFile]:
    return [lfs.add_file(f"{index}.wav", b"%d" % index) for index in range(count)]


def test_one_batch_request_asks_for_a_hundred_files(
    tmp_path: Path, server: Server, lfs: FakeLfsServer
) -> None:
    files = add_files(lfs, 250)
    summary = run_all(fetch_of(tmp_path, files, source(server, lfs)))
    assert (summary.written, summary.failed) == (250, 0)
    assert sorted(len(batch["objects"]) for batch in lfs.batches) == [50, 100, 100]
    assert {item["oid"]: item["size"] for batch in lfs.batches for item in batch["objects"]} == {
        file.sha256: file.size for file in files
    }
    for index, file in enumerate(files):
        assert (tmp_path / "raw" / file.path).read_bytes() == b"%d" % index


def test_two_files_with_the_same_bytes_are_both_fetched(
    tmp_path: Path, server: Server, lfs: FakeLfsServer
) -> None:
    files = [lfs.add_file(name, BODY) for name in ("a.wav", "b.wav")]
    stage = fetch_of(tmp_path, files, source(server, lfs))
    assert [fetch_file(stage, file) for file in files] == [BODY, BODY]
    assert [len(batch["objects"]) for batch in lfs.batches] == [1]


def test_objects_are_requested_with_the_headers_and_address_of_the_answer(
    tmp_path: Path, server: Server, lfs: FakeLfsServer
) -> None:
    file = lfs.add_file("a.wav", BODY)
    path = f"/objects/{file.sha256}?token={SECRET}"
    server.plan_answers(path, lambda handler: serve(handler, cut=1000))
    assert fetch_file(fetch_of(tmp_path, [file], source(server, lfs)), file) == BODY
    first, second = server.requests(path)
    assert first.headers["X-Token"] == second.headers["X-Token"] == SECRET
    assert second.headers["Range"] == "bytes=1000-"


@pytest.mark.parametrize(
    ("lifetime", "calls"),
    [
        ({}, 1),
        ({"expires_at": "2098-01-01T00:00:00Z"}, 1),
        ({"expires_at": "0001-01-01T00:00:00Z"}, 1),
        ({"expires_in": 1}, 2),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 2),
    ],
)
def test_expired_addresses_are_requested_again(
    tmp_path: Path, server: Server, lfs: FakeLfsServer, lifetime: dict[str, object], calls: int
) -> None:
    lfs.lifetime = lifetime
    files = add_files(lfs, 2)
    stage = fetch_of(tmp_path, files, source(server, lfs))
    assert [fetch_file(stage, file) for file in files] == [b"0", b"1"]
    assert len(lfs.batches) == calls


def test_a_missing_object_is_a_failure_and_the_others_are_fetched(
    tmp_path: Path, server: Server, lfs: FakeLfsServer
) -> None:
    files = add_files(lfs, 4)
    lfs.errors[str(files[1].sha256)] = 404
    summary = run_all(fetch_of(tmp_path, files, source(server, lfs)))
    (failure,) = summary.failures
    assert failure.path == "1.wav"
    assert failure.reason == "cannot be downloaded: localhost (LFS): answered 404"
    assert (summary.written, len(lfs.batches)) == (3, 1)


@pytest.mark.parametrize("code", [403, 509])
def test_a_refusal_because_of_a_quota_is_not_tried_again(
    tmp_path: Path, server: Server, lfs: FakeLfsServer, code: int
) -> None:
    file = lfs.add_file("a.wav", BODY)
    server.plan_answers(lfs.path, status(code))
    found_reason = fetch_file(fetch_of(tmp_path, [file], source(server, lfs)), file)
    assert found_reason == f"cannot be downloaded: localhost (LFS): answered {code}"
    assert len(server.received) == 1


def test_the_client_waits_for_a_busy_endpoint(
    tmp_path: Path, server: Server, lfs: FakeLfsServer
) -> None:
    file = lfs.add_file("a.wav", BODY)
    server.plan_answers(lfs.path, status(429, Retry_After="9"))
    waits: list[float] = []
    assert fetch_file(fetch_of(tmp_path, [file], source(server, lfs), waits=waits), file) == BODY
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
def test_a_wrong_answer_is_a_failure_with_its_reason(
    tmp_path: Path, server: Server, lfs: FakeLfsServer, answer: bytes, reason: str
) -> None:
    file = lfs.add_file("a.wav", BODY)
    body = answer.replace(b"OID", str(file.sha256).encode())
    server.plan_answers(lfs.path, status(200, body))
    found_reason = fetch_file(fetch_of(tmp_path, [file], source(server, lfs)), file)
    assert found_reason == f"cannot be downloaded: localhost (LFS): {reason}"


def test_a_file_without_a_checksum_cannot_be_fetched(
    tmp_path: Path, server: Server, lfs: FakeLfsServer
) -> None:
    file = MediaFile("a.wav", None, None)
    found_reason = fetch_file(fetch_of(tmp_path, [file], source(server, lfs)), file)
    assert "SHA-256 and size are known" in str(found_reason)
    assert server.received == []
