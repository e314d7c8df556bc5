"""The base of every settings and manifest class."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """Base of every settings and manifest class.

    A value cannot change, and an unknown key or a number that is NaN or infinite is an error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
