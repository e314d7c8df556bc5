"""``request.json``: what the last prepare was asked for."""

from pathlib import Path

from pydantic import BaseModel

from avsnn.datasets_manifest import load
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.formats.prepared_json import read_json_file


class PrepareRequest(BaseModel):
    """``request.json``: what the last prepare that was started was asked for.

    Attributes:
        settings: the settings that decide the bytes.
        source: the folder that the files came from; None where the files were downloaded or
            generated.
        store: the URL that shards and caches went to; None where shards and caches are in the data
            set's folder.
        max_failures: share of a stage's inputs that may fail.
    """

    settings: PrepareSettings
    source: Path | None = None
    store: str | None = None
    max_failures: float = 0.01


def make_request(
    settings: PrepareSettings,
    *,
    source: Path | None,
    store: str | None,
    max_failures: float | None,
    last: PrepareRequest | None,
) -> PrepareRequest:
    """Return the request of a command; None for ``max_failures`` takes what the last one had."""
    accepted = last.max_failures if last else PrepareRequest.model_fields["max_failures"].default
    return PrepareRequest(
        settings=settings,
        source=source and source.absolute(),
        store=store,
        max_failures=accepted if max_failures is None else max_failures,
    )


def load_request(root: Path, dataset: str) -> PrepareRequest | None:
    """Return the request of the last prepare that was started, or None where there was none.

    Raises:
        UserError: ``request.json`` is damaged, or there is no such data set.
    """
    path = root / load(dataset).name / "state" / "request.json"
    return read_json_file(PrepareRequest, path, dataset)
