"""``request.json``: what the last prepare was asked for."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import (
    BaseModel,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from avsnn.datasets_manifest import load
from avsnn.errors import UserError
from avsnn.pipeline.engine.atomic_files import write_if_changed
from avsnn.pipeline.formats.prepare_settings import PrepareSettings
from avsnn.pipeline.formats.prepared_json import read_json_file
from avsnn.pipeline.media.readers import ReaderSource
from avsnn.pipeline.prepare.chosen_readers import choose_readers

# Largest share of a stage's inputs that may fail, where nobody gave a share. The files of a
# published data set were whole when they were published. Nobody looked at a person's own files.
MAX_FAILURES, MAX_FAILURES_OF_OWN_FILES = 0.01, 0.1

# What a person gives as a store to have shards and caches in the data set's folder again.
NO_STORE = "none"


class PrepareRequest(BaseModel):
    """``request.json``: what the last prepare that was started was asked for.

    Attributes:
        settings: the settings that decide the bytes.
        source: the folder that the files came from; None where the files were downloaded or
            generated.
        store: the URL that shards and caches went to; None where shards and caches are in the data
            set's folder.
        max_failures: share of a stage's inputs that may fail.
        link: whether the files of ``source`` become links and not copies; None where nobody chose.
        readers: where the reader of each suffix of the data set's files comes from; the file holds
            no code of a reader.
    """

    settings: PrepareSettings
    source: Path | None = None
    store: str | None = None
    max_failures: float = MAX_FAILURES
    link: bool | None = None
    readers: dict[str, ReaderSource] = {}

    @model_serializer(mode="wrap")
    def _leave_out_no_readers(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write a request without readers as earlier versions did."""
        values: dict[str, Any] = handler(self)
        if not self.readers:
            values.pop("readers", None)
        return values


def make_request(
    dataset: str,
    settings: PrepareSettings,
    *,
    source: Path | None,
    store: str | None,
    max_failures: float | None,
    link: bool | None,
    last: PrepareRequest | None,
    readers: Mapping[str, ReaderSource] = MappingProxyType({}),
) -> PrepareRequest:
    """Return the request of a command.

    Where ``store``, ``max_failures`` or ``link`` is None, the last request decides. The store
    `NO_STORE` is the data set's folder. ``readers`` are those of files of the user, by suffix; the
    last request and the installed packages give further readers.

    Raises:
        UserError: there is no such data set, or links are wanted and no folder is given; or no file
            of the data set has the suffix of any reader of a file.
    """
    if link and source is None and load(dataset).folder is None:
        raise UserError("--link needs the folder of the files: add --source DIR.")
    if last is not None:
        link = last.link if link is None else link
        store = last.store if store is None else store
        max_failures = last.max_failures if max_failures is None else max_failures
    if max_failures is None:
        is_own = load(dataset).folder is not None
        max_failures = MAX_FAILURES_OF_OWN_FILES if is_own else MAX_FAILURES
    return PrepareRequest(
        settings=settings,
        source=source and source.absolute(),
        store=None if store == NO_STORE else store,
        max_failures=max_failures,
        link=link,
        readers=choose_readers(load(dataset), readers, last.readers if last else {}),
    )


def load_request(root: Path, dataset: str) -> PrepareRequest | None:
    """Return the request of the last prepare that was started, or None where there was none.

    Raises:
        UserError: ``request.json`` is damaged, or there is no such data set.
    """
    return read_json_file(PrepareRequest, _request_path(root / load(dataset).name), dataset)


def last_request(root: Path, dataset: str) -> PrepareRequest | None:
    """Return the request of the last prepare for the next prepare; None also if it is damaged.

    The next prepare writes ``request.json`` again, so a damaged file must not stop the prepare.

    Raises:
        UserError: there is no such data set, or ``request.json`` cannot be read.
    """
    path = _request_path(root / load(dataset).name)
    try:
        return PrepareRequest.model_validate_json(path.read_bytes())
    except ValidationError:
        return None
    except OSError:
        # A file that is not there is no request; any other fault is said.
        return read_json_file(PrepareRequest, path, dataset)


def save_request(folder: Path, request: PrepareRequest) -> None:
    """Write ``request.json`` of a data set, unless the file has this content already.

    Args:
        folder: the folder of the data set.
        request: what is asked for.
    """
    write_if_changed(_request_path(folder), request.model_dump_json(indent=1).encode())


def _request_path(folder: Path) -> Path:
    return folder / "state" / "request.json"
