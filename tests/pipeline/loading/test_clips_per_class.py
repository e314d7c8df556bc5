"""A training on a few clips of each class (``data.clips_per_class``)."""

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from avsnn.pipeline.loading.dataset import open_source
from avsnn.pipeline.loading.parts import Parts
from avsnn.pipeline.runs.config import make_config
from avsnn.pipeline.runs.train_settings import DataSettings, TrainSettings


def drawn(root: Path, count: int | None, *, seed: int = 1, shards: bool = False) -> set[str]:
    """Return the keys of the clips of a training."""
    settings = TrainSettings(data=DataSettings(clips_per_class=count), seed=seed)
    config = make_config("demo", settings, root=root)
    source = open_source(config, shards=shards)
    rows = Parts(config, source).rows_to_train(settings)
    return set(source.keys[rows[np.arange(len(rows))]].tolist())


def label_counts(root: Path, keys: set[str]) -> list[int]:
    """Return how many of the clips each class has, in ascending order."""
    source = open_source(make_config("demo", TrainSettings(), root=root))
    labels = dict(zip(source.keys.tolist(), source.labels.tolist(), strict=True))
    return sorted(Counter(labels[key] for key in keys).values())


@pytest.mark.parametrize("count", [1, 3])
def test_each_class_gives_as_many_training_clips_as_asked_for(small_demo: Path, count: int) -> None:
    of = partial(label_counts, small_demo)
    every = drawn(small_demo, None)
    few = drawn(small_demo, count)
    assert few < every
    assert of(few) == sorted(min(count, n) for n in of(every))


def test_a_class_with_fewer_clips_gives_all_of_its_clips(small_demo: Path) -> None:
    assert drawn(small_demo, 1_000) == drawn(small_demo, None)


def test_the_seed_draws_the_clips_and_shards_give_the_same_clips_as_caches(
    small_demo: Path,
) -> None:
    one = drawn(small_demo, 2)
    assert one == drawn(small_demo, 2) == drawn(small_demo, 2, shards=True)
    assert one != drawn(small_demo, 2, seed=2)


def test_a_run_on_a_few_clips_is_another_run(small_demo: Path) -> None:
    few = TrainSettings(data=DataSettings(clips_per_class=2))
    prints = [make_config("demo", s, root=small_demo).fingerprint for s in (few, TrainSettings())]
    assert prints[0] != prints[1]
