"""A list of records that can become a table of pandas."""

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from avsnn.errors import UserError

if TYPE_CHECKING:
    import pandas

T = TypeVar("T")


class Rows(list[T]):
    """A list of records: pydantic models or named tuples of one class."""

    def to_frame(self) -> "pandas.DataFrame":
        """Return the records as a table, one row for each record.

        A value that is a record itself gets a column for each of its fields: the accuracy ``top1``
        with its interval becomes ``top1_value``, ``top1_low`` and ``top1_high``.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError:
            raise UserError(
                "to_frame() needs pandas, which is not installed; run 'pip install pandas'."
            ) from None
        return pandas.json_normalize([_as_mapping(record) for record in self], sep="_")


def _as_mapping(record: Any) -> dict[str, Any]:
    if isinstance(record, BaseModel):
        return record.model_dump()
    return dict(record._asdict())
