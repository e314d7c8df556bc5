"""The base of every settings and manifest class."""

from collections.abc import Mapping
from typing import Any, ClassVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

# The type of pydantic's error for an unknown key.
UNKNOWN_KEY = "extra_forbidden"


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
        present: dict[Any, Any] = {}
        for key, value in values.items():
            name = cls.former_names.get(key, key)
            before = present.get(name)
            if isinstance(before, dict) and isinstance(value, dict):
                # A file may say the former name, and --set the present name for a key of the group.
                present[name] = {**before, **value}
            else:
                present[name] = value
        return present

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_value_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic would take for 0 or 1."""
        if isinstance(value, bool):
            annotation = cls.model_fields[str(info.field_name)].annotation
            if not {int, float}.isdisjoint(get_args(annotation) or (annotation,)):
                raise ValueError("the value must be a number")
        return value


def own_values(kind: type[StrictModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Check settings whose class depends on another setting; return all of them as plain values.

    The values are plain, because another process that reads them may not know the class.

    Raises:
        ValidationError: a key is unknown, or a value is not allowed. The context of an unknown key
            holds the ``known`` keys, because nobody can find the class in the class around it.
    """
    try:
        return kind.model_validate(values).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] != UNKNOWN_KEY:
            raise
        group: Any = kind
        for part in first["loc"][:-1]:
            field = getattr(group, "model_fields", {}).get(str(part))
            group = field and field.annotation
        known = list(getattr(group, "model_fields", ()))
        reason = PydanticCustomError(UNKNOWN_KEY, "there is no such setting", {"known": known})
        raise ValidationError.from_exception_data(
            error.title,
            [InitErrorDetails(type=reason, loc=first["loc"], input=first["input"])],
        ) from None
    except ValueError:
        raise
    except Exception as error:
        # The class is code of another person.
        raise ValueError(f"{type(error).__name__} in {kind.__name__}: {error}") from error
