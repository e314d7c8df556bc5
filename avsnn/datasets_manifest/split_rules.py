"""The part of a data set's YAML file that says which clips are train, val and test."""

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from avsnn.datasets_manifest.patterns import Pattern
from avsnn.pydantic_base import StrictModel


class ColumnSplit(StrictModel):
    """A split that the publisher gave: a column of the table names the part of each clip."""

    column: str = Field(
        description="Name of the column of the table that holds train, val or test",
        examples=["part"],
    )
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

    first_train: float = Field(
        gt=0, lt=1, description="Share of each class that is train, from 0 to 1", examples=[0.8]
    )
    val_fraction: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the train part that is set aside for validation, in each class",
    )


class GroupSplit(StrictModel):
    """A split without leaks: every group (speaker, recording) is in one part as a whole."""

    val_groups: tuple[str, ...] = Field(
        description="Groups of the validation part, as the column 'group' of the table names them",
        examples=[["anna"]],
    )
    test_groups: tuple[str, ...] = Field(
        description="Groups of the test part, as the column 'group' of the table names them",
        examples=[["ben"]],
    )


class GroupShareSplit(StrictModel):
    """A split without leaks that chooses the groups of each part by the shares of the classes.

    Every group is in one part as a whole. The share of each class in each part is as near as
    possible to the share that is asked for.
    """

    test_share: float = Field(
        gt=0, lt=1, description="Share of each class in the test part, from 0 to 1", examples=[0.2]
    )
    val_share: float = Field(
        gt=0,
        lt=1,
        description="Share of each class in the validation part, from 0 to 1",
        examples=[0.2],
    )

    @model_validator(mode="after")
    def _require_a_train_part(self) -> "GroupShareSplit":
        if self.test_share + self.val_share >= 1:
            raise ValueError("test_share and val_share leave nothing to train on")
        return self


RULES: tuple[type[StrictModel], ...] = (ColumnSplit, OrderSplit, GroupSplit, GroupShareSplit)


def _form_of_rule(rule: Any) -> str | None:
    """Return the name of the class whose fields are most like the fields of a rule."""
    if isinstance(rule, StrictModel):
        return type(rule).__name__
    given = set(rule) if isinstance(rule, dict) else set()
    best = max(RULES, key=lambda form: len(given & form.model_fields.keys()))
    return best.__name__ if given & best.model_fields.keys() else None


# Every rule is read as a rule of one form only, so that a mistake is said once.
Split = Annotated[
    Annotated[ColumnSplit, Tag("ColumnSplit")]
    | Annotated[OrderSplit, Tag("OrderSplit")]
    | Annotated[GroupSplit, Tag("GroupSplit")]
    | Annotated[GroupShareSplit, Tag("GroupShareSplit")],
    Discriminator(
        _form_of_rule,
        custom_error_type="rule_of_split",
        custom_error_message="a rule of a split has the field column, or first_train, or "
        "val_groups and test_groups, or test_share and val_share",
    ),
]
