"""Requests to a real S3 server on this machine: few, and many at once."""

from pathlib import Path

import pytest

from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import Output, publish, publish_again, sha256, why_damaged
from avsnn.pipeline.engine.stores import listed, open_url, read_files, read_ranges
from tests.s3_server import S3Server


def test_neighbours_share_a_request_and_all_ranges_come_in_one_call(s3: S3Server) -> None:
    place = open_url("s3://bucket/ranges")
    data = bytes(range(256)) * 4000
    for name in "ab":
        place.fs.pipe_file(f"{place.path}/{name}", data)
    near = [(f"{place.path}/a", start, start + 100) for start in range(0, 20_000, 512)]
    far = [(f"{place.path}/{name}", 900_000, 900_050) for name in "ba"]
    wanted = [far[0], *reversed(near), far[1], far[0]]
    s3.requests.clear()
    found = read_ranges(place, *zip(*wanted, strict=True))
    assert found == [data[start:end] for _, start, end in wanted]
    assert s3.requests == {"GET": 3}


def test_a_range_behind_the_end_of_a_file_is_short(s3: S3Server) -> None:
    place = open_url("s3://bucket/short")
    place.fs.pipe_file(f"{place.path}/a", b"0123456789")
    ranges = read_ranges(place, [f"{place.path}/a"] * 2, [0, 8], [3, 20])
    assert ranges == [b"012", b"89"]


def test_whole_files_come_in_one_call_without_those_that_are_missing(s3: S3Server) -> None:
    place = open_url("s3://bucket/whole")
    for name in "abc":
        place.fs.pipe_file(f"{place.path}/{name}", name.encode())
    s3.requests.clear()
    found = read_files(place, [f"{place.path}/{name}" for name in "abcd"])
    assert found == {f"{place.path}/{name}": name.encode() for name in "abc"}
    assert s3.requests == {"GET": 4}


def test_one_request_publishes_a_file_and_one_listing_finds_all_files(
    s3: S3Server, tmp_path: Path
) -> None:
    folder = open_url("s3://bucket/published")
    outputs = {}
    s3.requests.clear()
    for number in range(20):
        source = tmp_path / str(number)
        source.write_bytes(bytes([number]) * 1000)
        outputs[number] = publish(source, folder, f"deep/{number}")
    assert s3.requests == {"PUT": 20}
    s3.requests.clear()
    with listed(folder):
        assert not any(why_damaged(folder / f"deep/{n}", outputs[n]) for n in outputs)
        other = Output("deep/1", 999, "", 0)
        assert "1,000 bytes" in why_damaged(folder / "deep/1", other)
        assert why_damaged(folder / "deep/none", other) == "is missing"
    assert s3.requests == {"GET": 1}
    s3.requests.clear()
    assert why_damaged(folder / "deep/3", outputs[3], rehash=True) == ""
    assert s3.requests == {"HEAD": 1, "GET": 1}


def test_a_large_file_is_uploaded_in_pieces(s3: S3Server, tmp_path: Path) -> None:
    folder = open_url("s3://bucket/large")
    source = tmp_path / "large"
    source.write_bytes(bytes(1000) * 40_000)
    output = publish(source, folder, "large")
    assert why_damaged(folder / "large", output, rehash=True) == ""
    assert s3.requests["POST"] == 2


def test_a_file_gets_a_second_name_inside_the_store(s3: S3Server, tmp_path: Path) -> None:
    folder = open_url("s3://bucket/second")
    source = tmp_path / "first"
    source.write_bytes(b"content")
    output = publish(source, folder, "first")
    again = publish_again(folder / "first", folder, "other", output, tmp_path / "scratch")
    assert again.path == "other"
    assert sha256(folder / "other") == output.sha256
    with pytest.raises(FileNotFoundError):
        publish_again(folder / "none", folder, "other", output, tmp_path / "scratch")


def test_missing_credentials_are_told_in_one_sentence(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    # Another place than the places of other tests: the library remembers each client.
    folder = open_url("s3://bucket/none")
    folder.fs.clear_instance_cache()
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(UserError, match=r"may not be used with these credentials \(Unable to"):
        publish(tmp_path / "file", open_url("s3://bucket/none"), "file")
    folder.fs.clear_instance_cache()
