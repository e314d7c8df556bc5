"""The part of a data set's YAML file that says which clips are train, val and test."""

from pydantic import Field, model_validator

from avsnn.datasets_manifest.patterns import Pattern
from avsnn.pydantic_base import StrictModel


class ColumnSplit(StrictModel):
    """A split that the publisher gave: a column of the table names the part of each clip."""

    column: str = Field(description="Name of the column that holds train, val or test")
    val_fraction: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the train part that is set aside for validation, in each class",
    )
    whole_recordings: bool = Field(
        default=False,
        description="Whether clips that share a recording stay together, so that train and val "
        "share no recording",
    )
    keys: Pattern | None = Field(
        default=None,
        description="Regular expression of the keys of the clips in the split; other clips are in "
        "no part. Unset takes all clips",
    )


class OrderSplit(StrictModel):
    """A split by the order of keys: the first clips of each class are train, the rest are test.

    The two parts may share groups, such as speakers or recordings.
    """

    first_train: float = Field(gt=0, lt=1, description="Share of each class that is train")
    val_fraction: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the train part that is set aside for validation, in each class",
    )


class GroupSplit(StrictModel):
    """A split without leaks: every group (speaker, recording) is in one part as a whole."""

    val_groups: tuple[str, ...] = Field(description="Groups of the validation part")
    test_groups: tuple[str, ...] = Field(description="Groups of the test part")


class GroupShareSplit(StrictModel):
    """A split without leaks that chooses the groups of each part by the shares of the classes.

    Every group is in one part as a whole. The share of each class in each part is as near as
    possible to the share that is asked for.
    """

    test_share: float = Field(gt=0, lt=1, description="Share of each class in the test part")
    val_share: float = Field(gt=0, lt=1, description="Share of each class in the validation part")

    @model_validator(mode="after")
    def _require_a_train_part(self) -> "GroupShareSplit":
        if self.test_share + self.val_share >= 1:
            raise ValueError("test_share and val_share leave nothing to train on")
        return self


Split = ColumnSplit | OrderSplit | GroupSplit | GroupShareSplit
