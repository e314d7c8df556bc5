"""The base of every settings and manifest class."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """Base of every settings and manifest class: values cannot change, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
