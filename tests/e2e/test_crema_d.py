"""A made-up CREMA-D, over servers that misbehave as the real ones do, through the command."""

import json
import re
from itertools import cycle
from pathlib import Path

import pytest
import zarr

from avsnn.datasets_manifest.schema import OWN
from tests.conftest import ALONE, Command
from tests.fake_crema_d import FakeCremaD, make
from tests.pipeline.conftest import lfs, server  # noqa: F401 - fixtures
from tests.pipeline.server import Lfs, Server, cut, status

CLIPS = 120
TROUBLES = (
    cut(1000),
    status(429, Retry_After="0"),
    status(503, Retry_After="0"),
)


def publish(fake: FakeCremaD, mirror: Server, objects: Lfs) -> int:
    """Puts the files on a mirror and on Git LFS; returns how many requests will meet trouble.

    What is broken in the folder is broken on both. Of the good files, every seventh is answered
    with trouble at first, every thirtieth has other bytes on the mirror, every fortieth is a
    pointer there: Git LFS has these right.
    """
    broken = {what.path for what in fake.refused.values() if what.stage == "fetch"}
    troubles = cycle(TROUBLES)
    troubled = 0
    for row in fake.rows:
        for kind in ("audio", "visual"):
            path, digest = row[f"{kind}_path"], row[f"{kind}_sha256"]
            place = fake.folder / path
            body = place.read_bytes() if place.exists() else None
            if path in broken:
                objects.errors[digest] = 404
                if body is not None:
                    mirror.holds(f"crema/{path}", body)
                continue
            assert body is not None
            objects.holds(path, body)
            number = int(digest[:8], 16)
            if number % 30 == 0:
                body = bytes(reversed(body))
            elif number % 40 == 0:
                body = b"version https://git-lfs.github.com/spec/v1\n"
            mirror.holds(f"crema/{path}", body)
            if number % 7 == 0:
                mirror.tell(f"/files/crema/{path}", next(troubles))
                troubled += 1
    return troubled


@pytest.mark.long
def test_all_clips_arrive_and_every_one_is_accounted_for(
    avsnn: Command,
    server: Server,  # noqa: F811
    lfs: Lfs,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = make(tmp_path / "published", CLIPS)
    troubled = publish(fake, server, lfs)
    assert troubled > 20
    own = tmp_path / "own"
    own.mkdir()
    mirror = {"prefix": "", "url": server.url("/files/crema/")}
    fake.write_manifest(own, sources=[mirror, {"prefix": "", "lfs": server.url(lfs.path)}])
    monkeypatch.setenv(OWN, str(own))

    # Enough for the files that cannot be fetched, not for the clips that cannot be decoded.
    refused = avsnn("prepare", "fake-crema-d", "--max-failures", "0.05")
    assert refused.returncode == 1
    assert "accept them with --max-failures 0.13" in refused.stderr
    assert re.search(r"extract: 14 of 115 inputs failed", refused.stderr)
    done = avsnn("prepare", "fake-crema-d", "--max-failures", "0.2")
    assert done.returncode == 0, done.stderr

    stages = json.loads(avsnn("status", "--json").stdout)["stages"]
    counts = {s["stage"]: (s["written"], s["skipped"], s["failed"]) for s in stages}
    assert counts == fake.accounts
    assert counts["fetch"] == (235, 0, 5)
    assert counts["extract"] == (101, 0, 14)
    folder = tmp_path / "data" / "fake-crema-d"
    failures = [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]
    expected = {key: what.stage for key, what in fake.refused.items()}
    assert {row["key"]: row["stage"] for row in failures} == expected
    (cache,) = folder.glob("cache/frames-*.zarr")
    kept = {row["key"] for row in fake.rows} - set(expected)
    assert set(zarr.open_group(cache, mode="r")["key"][:]) == kept
    # A hundred addresses at a time, however many threads ask.
    assert len(lfs.batches) <= 7
    assert avsnn("verify", "fake-crema-d").returncode == 0
    # Failures that were accepted stay so, here and in a repair.
    before = len(server.asked)
    assert "nothing to do" in avsnn("prepare", "fake-crema-d").stdout
    assert len(server.asked) == before
    (cache / "key" / "c" / "0").unlink()
    assert avsnn("repair", "fake-crema-d", *ALONE).returncode == 0
    assert avsnn("verify", "fake-crema-d").returncode == 0
