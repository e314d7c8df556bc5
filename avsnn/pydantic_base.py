"""The base of every settings and manifest class."""

from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator


class StrictModel(BaseModel):
    """Base of every settings and manifest class.

    A value cannot change. An unknown key, a number that is NaN or infinite, and a truth value in
    place of a number are errors.

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

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_value_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic would take for 0 or 1."""
        if isinstance(value, bool):
            annotation = cls.model_fields[str(info.field_name)].annotation
            if not {int, float}.isdisjoint(get_args(annotation) or (annotation,)):
                raise ValueError("the value must be a number")
        return value
