import csv
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from avsnn.datasets_manifest import load, names
from avsnn.datasets_manifest.schema import Manifest, _inside
from avsnn.errors import UserError


@pytest.mark.parametrize("name", names())
def test_every_manifest_fits_the_schema_and_its_table(name: str) -> None:
    manifest = load(name)
    assert manifest.name == name
    assert {clip.label for clip in manifest.clips} == set(range(len(manifest.classes)))
    groups = {clip.group for clip in manifest.clips}
    for rule in manifest.splits.values():
        assert set(getattr(rule, "test_groups", ())) <= groups
        assert set(getattr(rule, "val_groups", ())) <= groups


def test_av_digits_table_says_what_was_published(shared_data: Path) -> None:
    table = (shared_data / "av-digits" / "pairs.csv").read_text().splitlines()
    published = {row["key"]: row for row in csv.DictReader(table)}
    clips = load("av-digits").clips
    assert len(clips) == len(published) == 3000
    for clip in clips:
        row = published[clip.key]
        assert (clip.audio.path, clip.audio.sha256) == (row["audio_path"], row["audio_sha256"])
        assert (clip.visual.path, clip.visual.sha256) == (row["image_path"], row["image_sha256"])
        assert (clip.label, clip.group) == (int(row["label"]), row["speaker"])
        assert clip.columns == {"split": row["split"]}


def test_every_downloaded_file_has_an_address_at_a_pinned_commit_and_a_checksum() -> None:
    manifest = load("av-digits")
    for clip in manifest.clips:
        for file in clip.files:
            assert file.sha256 is not None
            assert file.size is not None
            (source,) = (place for place in manifest.sources if file.path.startswith(place.prefix))
            assert re.match(
                r"https://raw\.githubusercontent\.com/.+/[0-9a-f]{40}/$", source.url or ""
            )


PINNED = r"https://raw\.githubusercontent\.com/.+/[0-9a-f]{40}/"

OUTSIDE = st.one_of(
    st.text().map(lambda text: "/" + text),
    st.tuples(st.text(), st.text()).map(lambda pair: f"{pair[0]}/../{pair[1]}"),
    st.text().map(lambda text: "..\\" + text),
    st.sampled_from(["C:/windows", "", ".", "./a", "a//b", "a/", "a\0b", "a\nb"]),
)


@given(OUTSIDE)
def test_a_path_that_leaves_the_folder_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="not a path inside"):
        _inside(path, "table.csv")


def test_a_misspelt_fact_is_refused() -> None:
    facts = load("demo").model_dump()
    with pytest.raises(ValidationError, match="licnce"):
        Manifest.model_validate({**facts, "licnce": "MIT"})


LFS = "https://example.org/repo.git/info/lfs/objects/batch"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"url": "http://example.org/"}, "must say insecure: true"),
        ({"lfs": LFS.replace("https", "http")}, "must say insecure: true"),
        ({"url": "ftp://example.org/", "insecure": True}, "url"),
        ({"url": "https://example.org"}, "url"),
        ({"lfs": "https://example.org/repo.git"}, "lfs"),
        ({"url": "https://example.org/", "lfs": LFS}, "either url or lfs"),
        ({}, "either url or lfs"),
    ],
)
def test_a_source_that_is_not_of_one_secure_kind_is_refused(
    source: dict[str, object], told: str
) -> None:
    facts = load("av-digits").model_dump()
    facts["sources"] = [{"prefix": "", **source}]
    with pytest.raises(ValidationError, match=told):
        Manifest.model_validate(facts)


def test_a_file_that_no_source_holds_is_refused() -> None:
    facts = load("av-digits").model_dump()
    facts["sources"] = [{"prefix": "fsdd/", "url": "https://example.org/"}]
    with pytest.raises(UserError, match="no source in its manifest holds mnist-pngs/"):
        _ = Manifest.model_validate(facts).clips
