"""The type of a field that holds a regular expression."""

import re
from typing import Annotated

from pydantic import AfterValidator


def _require_pattern(text: str) -> str:
    """Refuse a text that is no regular expression.

    Raises:
        ValueError: Python cannot compile the text.
    """
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return text


Pattern = Annotated[str, AfterValidator(_require_pattern)]
