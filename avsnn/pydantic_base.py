"""The base of every settings and manifest class."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class StrictModel(BaseModel):
    """Base of every settings and manifest class.

    A value cannot change, and an unknown key or a number that is NaN or infinite is an error.

    Attributes:
        former_names: the present name of every key that had another name in an earlier version, by
            the former name. So a key that gets another name is still read from older files.
    """

    former_names: ClassVar[dict[str, str]] = {}

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _read_former_names(cls, values: Any) -> Any:
        if not cls.former_names or not isinstance(values, dict):
            return values
        return {cls.former_names.get(key, key): value for key, value in values.items()}
