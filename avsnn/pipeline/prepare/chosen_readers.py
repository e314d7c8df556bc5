"""Which reader reads the files of a data set that avsnn does not decode itself."""

from collections.abc import Iterable, Mapping

from avsnn.datasets_manifest import Manifest
from avsnn.datasets_manifest.clip_table import CLIPS_AT_ONCE
from avsnn.errors import UserError
from avsnn.pipeline.media.readers import (
    ReaderSource,
    source_of_package,
    suffix_of,
    suffixes_of_packages,
    why_missing,
)


def choose_readers(
    manifest: Manifest, given: Mapping[str, ReaderSource], last: Mapping[str, ReaderSource]
) -> dict[str, ReaderSource]:
    """Return where the reader of each suffix comes from, for the suffixes of a data set.

    A file that was given comes first, then the file of the last prepare, then an installed package,
    then the package of the last prepare.

    Args:
        manifest: the data set.
        given: the readers of the files that were given now, by suffix.
        last: the readers of the last prepare.

    Raises:
        UserError: no file of the data set has the suffix of any reader that was given, or two
            packages offer a reader of one suffix.
    """
    offered = suffixes_of_packages()
    if not given and not last and not offered:
        return {}
    suffixes = _suffixes(manifest)
    if given and suffixes.isdisjoint(given):
        (name, *_) = {source.name for source in given.values()}
        raise UserError(
            f"{name} reads {_listed(given)}, and {manifest.name} has no such files, only "
            f"{_listed(suffixes)}; leave out --plugin, or register the reader of these files."
        )
    chosen = {}
    for suffix in sorted(suffixes):
        before = last.get(suffix)
        is_of_file = before is not None and before.is_file
        package = source_of_package(suffix) if suffix in offered and not is_of_file else None
        source = given.get(suffix) or package or before
        if source is not None:
            chosen[suffix] = source
    return chosen


def with_code(
    dataset: str, recorded: Mapping[str, ReaderSource], given: Mapping[str, ReaderSource]
) -> dict[str, ReaderSource]:
    """Return the readers of the last prepare, with the code of the files that were given.

    Raises:
        UserError: a file that was given is another file than that of the last prepare.
    """
    found = {suffix: source for suffix, source in given.items() if suffix in recorded}
    if given and not found:
        (name, *_) = {source.name for source in given.values()}
        raise UserError(
            f"{dataset} was prepared without a reader of {_listed(given)}; leave out "
            f"--plugin {name}."
        )
    for suffix, source in found.items():
        if recorded[suffix].identity != source.identity:
            raise UserError(
                f"{source.name} is not the file whose reader '{suffix}' prepared {dataset}; give "
                f"that file, or run 'avsnn prepare {dataset} --plugin {source.name}', which "
                "decodes its clips again."
            )
    return {**recorded, **found}


def require_here(dataset: str, readers: Mapping[str, ReaderSource], needed: Iterable[str]) -> None:
    """Do nothing if the readers of some suffixes can run.

    Raises:
        UserError: the code of a reader is not here; the sentence says what to add.
    """
    for suffix in needed:
        source = readers[suffix]
        if why := why_missing(suffix, source):
            raise UserError(
                f"{dataset} was prepared with the reader '{suffix}' of {source}: {why}."
            )


def _suffixes(manifest: Manifest) -> set[str]:
    """Return the suffixes of the files of a data set; recordings of events have no readers."""
    if manifest.has_events:
        return set()
    if manifest.layout is not None:
        layout = manifest.layout
        return {suffix_of(f"a{layout.audio_suffix}"), suffix_of(f"a{layout.visual_suffix}")}
    clips = manifest.clips
    return {
        suffix_of(recording)
        for columns in (clips.audio, clips.visual)
        for first in range(0, len(clips), CLIPS_AT_ONCE)
        for recording in columns.recordings(slice(first, first + CLIPS_AT_ONCE))
    }


def _listed(suffixes: Iterable[str]) -> str:
    return ", ".join(f"'{suffix}'" for suffix in sorted(suffixes))
