"""Files of earlier versions, in which a setting had another name."""

from typing import ClassVar

import pytest
from pydantic import Field, ValidationError

from avsnn.pydantic_base import StrictModel


class Inner(StrictModel):
    former_names: ClassVar[dict[str, str]] = {"hop": "stride"}
    stride: int = 353


class Outer(StrictModel):
    audio: Inner = Inner()


def test_a_setting_that_got_another_name_is_read_from_an_older_file() -> None:
    assert Outer.model_validate_json('{"audio": {"hop": 200}}').audio.stride == 200
    assert Outer.model_validate({"audio": {"stride": 7}}).audio.stride == 7


def test_a_key_that_never_was_a_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="nonsense"):
        Outer.model_validate({"audio": {"nonsense": 1}})


class Group(StrictModel):
    former_names: ClassVar[dict[str, str]] = {"options": "custom"}
    custom: dict[str, int] = Field(default={})


def test_a_group_under_its_former_and_its_present_name_is_one_group_in_which_the_later_wins() -> (
    None
):
    both = {"options": {"a": 1, "b": 1}, "custom": {"b": 2}}
    assert Group.model_validate(both).custom == {"a": 1, "b": 2}
