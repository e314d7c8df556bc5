"""Prepares a made-up CREMA-D with the command, from servers that fail as real servers do."""

import json
import re
from itertools import cycle
from pathlib import Path

import pytest
import zarr

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from tests.conftest import ALONE, Command
from tests.fake_crema_d import FakeCremaD, make
from tests.pipeline.conftest import lfs, server  # noqa: F401 - fixtures
from tests.pipeline.transfer.server import FakeLfsServer, Server, cut, status

CLIPS = 120
ERRORS = (
    cut(1000),
    status(429, Retry_After="0"),
    status(503, Retry_After="0"),
)


def publish(fake: FakeCremaD, mirror: Server, objects: FakeLfsServer) -> int:
    """Put the files on a mirror and on Git LFS; return how many requests will fail at first.

    Files that are broken in the folder are broken on both servers. Of the good files, the mirror
    answers about every seventh with an error at first, holds other bytes for every thirtieth, and
    holds a pointer for every fortieth. Git LFS holds all good files.
    """
    broken = {clip.path for clip in fake.refused.values() if clip.stage == "fetch"}
    errors = cycle(ERRORS)
    failing_requests = 0
    for row in fake.rows:
        for kind in ("audio", "visual"):
            path, digest = row[f"{kind}_path"], row[f"{kind}_sha256"]
            source_file = fake.folder / path
            body = source_file.read_bytes() if source_file.exists() else None
            if path in broken:
                objects.errors[digest] = 404
                if body is not None:
                    mirror.add_file(f"crema/{path}", body)
                continue
            assert body is not None
            objects.add_file(path, body)
            number = int(digest[:8], 16)
            if number % 30 == 0:
                body = bytes(reversed(body))
            elif number % 40 == 0:
                body = b"version https://git-lfs.github.com/spec/v1\n"
            mirror.add_file(f"crema/{path}", body)
            if number % 7 == 0:
                mirror.plan_answers(f"/files/crema/{path}", next(errors))
                failing_requests += 1
    return failing_requests


@pytest.mark.long
def test_every_clip_from_failing_servers_is_prepared_or_recorded_as_a_failure(
    avsnn: Command,
    server: Server,  # noqa: F811
    lfs: FakeLfsServer,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = make(tmp_path / "published", CLIPS)
    failing_requests = publish(fake, server, lfs)
    assert failing_requests > 20
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    mirror = {"prefix": "", "url": server.url("/files/crema/")}
    fake.write_manifest(manifests, sources=[mirror, {"prefix": "", "lfs": server.url(lfs.path)}])
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(manifests))

    # Enough for the files that cannot be fetched, not for the clips that cannot be decoded.
    refused = avsnn("prepare", "fake-crema-d", "--max-failures", "0.05")
    assert refused.returncode == 1
    assert "accept them with --max-failures 0.13" in refused.stderr
    assert re.search(r"extract: 14 of 115 inputs failed", refused.stderr)
    done = avsnn("prepare", "fake-crema-d", "--max-failures", "0.2")
    assert done.returncode == 0, done.stderr

    stages = json.loads(avsnn("status", "--json").stdout)["stages"]
    counts = {s["stage"]: (s["written"], s["skipped"], s["failed"]) for s in stages}
    assert counts == fake.counts
    assert counts["fetch"] == (235, 0, 5)
    assert counts["extract"] == (101, 0, 14)
    folder = tmp_path / "data" / "fake-crema-d"
    failures = [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]
    expected = {key: clip.stage for key, clip in fake.refused.items()}
    assert {row["key"]: row["stage"] for row in failures} == expected
    (cache,) = folder.glob("cache/frames-*.zarr")
    good = {row["key"] for row in fake.rows} - set(expected)
    assert set(zarr.open_group(cache, mode="r")["key"][:]) == good
    # One request asks Git LFS for a hundred addresses, for any number of threads.
    assert len(lfs.batches) <= 7
    assert avsnn("verify", "fake-crema-d").returncode == 0
    # Accepted failures stay accepted, in a rerun and in a repair.
    before = len(server.received)
    assert "nothing to do" in avsnn("prepare", "fake-crema-d").stdout
    assert len(server.received) == before
    (cache / "key" / "c" / "0").unlink()
    assert avsnn("repair", "fake-crema-d", *ALONE).returncode == 0
    assert avsnn("verify", "fake-crema-d").returncode == 0
