"""What prepare says about parts of a split in which something is missing."""

from tests.conftest import ALONE, Command
from tests.own_dataset import OwnDataset


def test_empty_parts_and_missing_classes_are_said_also_when_there_is_nothing_to_do(
    avsnn: Command, own: OwnDataset
) -> None:
    for row in own.rows:
        row["split"] = "train" if row["split"] == "val" else row["split"]
    own.rows = [row for row in own.rows if row["split"] == "train" or row["label"] not in "01"]
    own.facts["splits"] = {"published": {"column": "split", "val_fraction": 0.0}}
    own.write()
    for _ in range(2):
        done = avsnn("prepare", "own", *ALONE)
        said = " ".join(done.stdout.split())
        assert "own: note: the part val of the split 'published' has no clips." in said
        assert (
            "test of the split 'published' has no clip of 2 classes, ring-rising among them" in said
        )
        assert "part train" not in said
    assert "nothing to do" in said
