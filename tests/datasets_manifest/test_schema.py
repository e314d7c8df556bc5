import csv
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from avsnn.datasets_manifest import catalogue, load, names, schema
from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from avsnn.datasets_manifest.schema import Manifest
from avsnn.datasets_manifest.table_reader import _require_path_inside
from avsnn.errors import UserError

PUBLISHED = [name for name in names() if load(name).table]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_manifest_fits_the_schema_and_its_table(name: str) -> None:
    manifest = load(name)
    assert manifest.name == name
    assert {clip.label for clip in manifest.clips} == set(range(len(manifest.classes)))
    groups = {clip.group for clip in manifest.clips}
    for rule in manifest.splits.values():
        assert set(getattr(rule, "test_groups", ())) <= groups
        assert set(getattr(rule, "val_groups", ())) <= groups
    assert manifest.known_bad.keys() <= {clip.key for clip in manifest.clips}


def test_crema_d_has_the_published_clips_labels_and_checksums(shared_data: Path) -> None:
    folder = shared_data / "crema-d"
    media = {row["path"]: row for row in csv.DictReader((folder / "media.csv").open())}
    published = {
        key: (part, label)
        for part in ("train", "test")
        for key, label in csv.reader((folder / f"split_published_{part}.csv").open())
    }
    manifest = load("crema-d")
    assert {clip.key for clip in manifest.clips} == published.keys()
    for clip in manifest.clips:
        actor, _, emotion, _ = clip.key.split("_")
        assert (clip.group, manifest.classes[clip.label]) == (actor, emotion)
        assert (clip.columns["split"], emotion) == published[clip.key]
        for file in clip.files:
            assert Path(file.path).stem == clip.key
            row = media.pop(file.path)
            assert (file.sha256, file.size) == (row["sha256"], int(row["size"]))
    assert media == {}


def test_crema_d_has_the_published_counts() -> None:
    manifest = load("crema-d")
    clips = manifest.clips
    assert len({file.path for clip in clips for file in clip.files}) == 14_884
    assert sum(clip.audio.size or 0 for clip in clips) == 605_899_936
    assert sum(clip.visual.size or 0 for clip in clips) == 2_443_021_141
    counts = Counter(manifest.classes[clip.label] for clip in clips)
    assert counts == {**dict.fromkeys(("ANG", "DIS", "FEA", "HAP", "SAD"), 1271), "NEU": 1087}
    assert Counter(clip.columns["split"] for clip in clips) == {"train": 6698, "test": 744}
    assert {clip.group for clip in clips} == {str(actor) for actor in range(1001, 1092)}


def test_av_digits_has_the_published_clips_labels_and_checksums(shared_data: Path) -> None:
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


@pytest.mark.parametrize(
    "name", [name for name in names() if load(name).sources and not load(name).archives]
)
def test_every_downloaded_file_has_an_address_and_a_checksum(name: str) -> None:
    manifest = load(name)
    for clip in manifest.clips:
        for file in clip.files:
            assert file.sha256 is not None
            assert file.size is not None
            places = [p for p in manifest.sources if file.path.startswith(p.prefix)]
            assert any(re.search("/[0-9a-f]{40}/$", place.url or "") for place in places)


OUTSIDE_PATHS = st.one_of(
    st.text().map(lambda text: "/" + text),
    st.tuples(st.text(), st.text()).map(lambda pair: f"{pair[0]}/../{pair[1]}"),
    st.text().map(lambda text: "..\\" + text),
    st.sampled_from(["C:/windows", "", ".", "./a", "a//b", "a/", "a\0b", "a\nb"]),
)


@given(OUTSIDE_PATHS)
def test_a_path_outside_the_folder_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="not a path inside"):
        _require_path_inside(path, "table.csv")


def test_a_misspelt_field_is_refused() -> None:
    facts = load("demo").model_dump()
    with pytest.raises(ValidationError, match="licnce"):
        Manifest.model_validate({**facts, "licnce": "MIT"})


LFS = "https://example.org/repo.git/info/lfs/objects/batch"


@pytest.mark.parametrize(
    ("source", "part_of_message"),
    [
        ({"url": "http://example.org/"}, "must say insecure: true"),
        ({"lfs": LFS.replace("https", "http")}, "must say insecure: true"),
        ({"url": "ftp://example.org/", "insecure": True}, "url"),
        ({"url": "https://example.org"}, "url"),
        ({"lfs": "https://example.org/repo.git"}, "lfs"),
        ({"url": "https://example.org/", "lfs": LFS}, "has url, lfs or file"),
        ({}, "has url, lfs or file"),
    ],
)
def test_a_source_needs_one_address_that_is_secure_or_marked_insecure(
    source: dict[str, object], part_of_message: str
) -> None:
    facts = load("av-digits").model_dump()
    facts["sources"] = [{"prefix": "", **source}]
    with pytest.raises(ValidationError, match=part_of_message):
        Manifest.model_validate(facts)


def test_a_file_that_no_source_holds_is_refused() -> None:
    facts = load("av-digits").model_dump()
    facts["sources"] = [{"prefix": "fsdd/", "url": "https://example.org/"}]
    with pytest.raises(UserError, match="no source in its manifest holds mnist-pngs/"):
        _ = Manifest.model_validate(facts).clips


@pytest.mark.parametrize(
    ("old", "new", "part_of_message"),
    [
        ("0_george_1,0,", "0_george_1,10,", "label 10 is no class"),
        ("0_george_1,0,", "0_george_1,-1,", "label -1 is no class"),
        ("0_george_1,0,", "0_george_0,0,", "key 0_george_0 occurs twice"),
        ("0_george_1,0,", "0.george.1,0,", "is not letters, digits"),
        (",test,", ",dev,", "a part is train, val or test"),
        (",group,", ",speaker,", "no column 'group'"),
        ("239d40931", "239d", "the checksum or the size of"),
        ("fsdd/recordings/0_george_1.wav", "../0_george_1.wav", "not a path inside"),
    ],
)
def test_a_wrong_table_is_refused_with_its_reason(
    tmp_path: Path, old: str, new: str, part_of_message: str
) -> None:
    manifest = load("av-digits")
    text = (Path(schema.__file__).parent / "av-digits.csv").read_text()
    assert old in text
    table = tmp_path / "table.csv"
    table.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=part_of_message):
        _ = manifest.with_table(table).clips


def test_a_table_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    text = (Path(schema.__file__).parent / "av-digits.csv").read_text()
    table.write_text(text[:5000].rpartition(",")[0])
    with pytest.raises(UserError, match="cut off"):
        _ = load("av-digits").with_table(table).clips


@pytest.fixture
def own_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own data sets; the folder has one data set, of two clips."""
    shipped = Path(schema.__file__).parent
    text = (shipped / "av-digits.yaml").read_text().replace("av-digits", "mine")
    (tmp_path / "mine.yaml").write_text(text)
    rows = (shipped / "av-digits.csv").read_text().splitlines()[:3]
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def test_a_folder_of_the_user_adds_data_sets_to_the_shipped_ones(own_datasets: Path) -> None:
    assert {"mine", "av-digits", "demo"} <= set(names())
    assert len(load("mine").clips) == 2
    assert len(load("av-digits").clips) == 3000


def test_a_table_must_lie_beside_its_manifest(own_datasets: Path) -> None:
    (own_datasets / "mine.csv").rename(own_datasets / "av-digits.csv")
    assert len(load("av-digits").clips) == 3000
    text = (own_datasets / "mine.yaml").read_text()
    (own_datasets / "mine.yaml").write_text(text.replace("mine.csv", "demo.csv"))
    with pytest.raises(UserError, match=r"demo\.csv is not beside it"):
        _ = load("mine").clips


@pytest.mark.parametrize(
    ("old", "new", "part_of_message"),
    [
        ("name: mine", "name: yours", "name the file after it"),
        ("mine.csv", "other.csv", "other.csv is not beside it"),
        ("mine.csv", "../mine.csv", "table"),
        ("visual: image", "visual: [", "is not YAML"),
        ("visual: image", "visual: smell", "visual"),
    ],
)
def test_a_wrong_manifest_of_the_user_is_refused_with_one_sentence(
    own_datasets: Path, old: str, new: str, part_of_message: str
) -> None:
    text = (own_datasets / "mine.yaml").read_text()
    assert old in text
    (own_datasets / "mine.yaml").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=part_of_message) as error:
        _ = load("mine").clips
    assert "\n" not in str(error.value)


def test_a_missing_folder_of_the_user_is_refused_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(USER_FOLDER_VARIABLE, "/proc/nope")
    with pytest.raises(UserError, match="/proc/nope is not a folder; --datasets or"):
        names()


def test_a_command_parses_the_yaml_of_a_data_set_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(schema.__file__).parent / "demo.yaml").read_text()
    # Another test may have loaded a data set of the same text.
    text = f"# {tmp_path}\n{text}"
    (tmp_path / "mine.yaml").write_text(text.replace("name: demo", "name: mine"))
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(tmp_path))
    parsed = []
    parse = catalogue.yaml.safe_load
    monkeypatch.setattr(
        catalogue.yaml, "safe_load", lambda text: (parsed.append(text), parse(text))[1]
    )
    manifests = [load("mine") for _ in range(3)]
    assert len(parsed) == 1
    assert all(manifest.title == manifests[0].title for manifest in manifests)


def test_a_changed_yaml_is_parsed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(schema.__file__).parent / "demo.yaml").read_text()
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("name: demo", "name: mine"))
    monkeypatch.setenv(USER_FOLDER_VARIABLE, str(tmp_path))
    before = load("mine").title
    mine.write_text(mine.read_text().replace(f"title: {before}", "title: Another title"))
    assert load("mine").title == "Another title"
