"""Which rows of a source belong to which part of a run's split."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from avsnn.datasets_manifest.clips import PART_OF_CODE
from avsnn.errors import UserError
from avsnn.pipeline.formats.clip_index import open_index
from avsnn.pipeline.formats.prepared_json import require_prepared
from avsnn.pipeline.loading.source import Source
from avsnn.pipeline.runs.config import RunConfig
from avsnn.pipeline.runs.train_settings import TrainSettings

# Number of clips whose places are counted together.
BLOCK = 64


class Rows(Protocol):
    """Rows of a source by their positions in a part; an array of rows is such rows, too."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, positions: NDArray[np.int64], /) -> NDArray[np.int64]:
        """Return the rows at some positions, ``[B]``."""


class Parts:
    """The part of each clip of a source in the split of a run.

    Args:
        config: the configuration of the run.
        source: the samples of the run.

    Raises:
        UserError: the index is damaged, or does not list every clip of the source in this split.
    """

    def __init__(self, config: RunConfig, source: Source) -> None:
        self._dataset, self._split = config.dataset, config.split
        self._default_split = config.manifest.default_split
        prepared = require_prepared(config.root, config.dataset)
        self._extract = prepared.settings.extract
        self._index = index = open_index(config.root / config.dataset / prepared.index)
        self._lines = lines = index.find(source.keys)
        codes = index.parts.get(self._split)
        if codes is None or len(unlisted := np.flatnonzero(lines < 0)):
            key = source.keys[0 if codes is None else unlisted[0]]
            raise UserError(
                f"{index.folder / 'clips.jsonl'} does not say in which part of the split "
                f"{self._split!r} the clip {key} is; run 'avsnn prepare {self._dataset}' again."
            )
        self._codes = codes[lines]

    def rows(self, part: str) -> NDArray[np.int64]:
        """Return the rows of the clips of a part, ``[N]``.

        Raises:
            UserError: no clip is in the part.
        """
        return np.flatnonzero(self._in_parts(part))

    def rows_to_train(self, settings: TrainSettings) -> "PartRows":
        """Return the rows of the clips of a training, without a number for each clip.

        Args:
            settings: say which parts are trained on, and how many clips of each class.

        Raises:
            UserError: no clip is in the parts.
        """
        found = self._in_parts(*settings.train_parts)
        count = settings.data.clips_per_class
        return PartRows(found if count is None else self._drawn(found, count, settings.seed))

    def _drawn(self, found: NDArray[np.bool_], count: int, seed: int) -> NDArray[np.bool_]:
        """Keep at most ``count`` clips of each class, drawn with a seed.

        A clip's number depends on the seed and on its line of the index, so a source in another
        order gives the same clips, and so does every method.
        """
        rows = np.flatnonzero(found)
        lines = self._lines[rows]
        numbers = np.random.default_rng(seed).random(len(self._index))[lines]
        labels = self._index.labels[lines]
        order = np.lexsort((numbers, labels))
        sizes = np.bincount(labels)
        places = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        kept = np.zeros_like(found)
        kept[rows[order[places < count]]] = True
        return kept

    def shards(self) -> NDArray[np.int32]:
        """Return the number of the shard that holds each clip of the source, ``[N]``.

        The numbers come from the index alone. So the numbers are the same whether the source reads
        shards or caches, whose clips of a shard lie near each other, too.
        """
        # Only a training with windows of shards needs the stage, whose import takes time.
        from avsnn.pipeline.prepare.stages.extract import divide_into_shards

        index = self._index
        numbers = np.empty(len(index), np.int32)
        parts = index.parts[self._default_split]
        shards = divide_into_shards(index.hashes, parts, index.sizes, self._extract)
        for number, (_, lines) in enumerate(shards):
            numbers[lines] = number
        return numbers[self._lines]

    def _in_parts(self, *parts: str) -> NDArray[np.bool_]:
        found = np.isin(self._codes, [PART_OF_CODE.index(part) for part in parts])
        if not found.any():
            raise UserError(
                f"{self._dataset}: no prepared clip is in {' or '.join(parts)} of the split "
                f"{self._split!r}; prepare more of them (see --limit)."
            )
        return found


class PartRows:
    """The rows of the clips of a part: one byte for each clip of the source.

    Args:
        is_in_part: whether each clip of the source is in the part, ``[N]``.
    """

    def __init__(self, is_in_part: NDArray[np.bool_]) -> None:
        blocks = -(-len(is_in_part) // BLOCK)
        self._is_in_part = np.zeros((blocks, BLOCK), np.bool_)
        self._is_in_part.reshape(-1)[: len(is_in_part)] = is_in_part
        # Number of the part's clips before each block.
        self._before = np.append(0, np.cumsum(self._is_in_part.sum(1)))

    def __len__(self) -> int:
        return int(self._before[-1])

    def __getitem__(self, positions: NDArray[np.int64], /) -> NDArray[np.int64]:
        """Return the rows at some positions, ``[B]``."""
        blocks = np.searchsorted(self._before, positions, side="right") - 1
        counts = np.cumsum(self._is_in_part[blocks], axis=1, dtype=np.int16)
        wanted = (positions - self._before[blocks])[:, None]
        # The wanted clip is the first one whose count is above the number of clips before it.
        found: NDArray[np.int64] = blocks * BLOCK + (counts <= wanted).sum(1)
        return found
