"""Features in a plane, and the clips that stand for a part."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from avsnn.pipeline.evaluation.insight import embedding
from avsnn.pipeline.evaluation.insight.chosen_clips import Clip, choose_clips
from avsnn.pipeline.evaluation.insight.embedding import embed, principal_components
from avsnn.pipeline.inference.predict import Scores


def clips(count: int) -> list[Clip]:
    return [Clip(n, f"clip-{n}", "a", "b") for n in range(count)]


def features(count: int, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)


@pytest.mark.parametrize(
    ("count", "method"), [(1, "PCA"), (29, "PCA"), (30, "t-SNE"), (60, "t-SNE")]
)
def test_few_clips_go_by_pca(count: int, method: str) -> None:
    plane = embed(features(count), clips(count))
    assert plane.method == method
    assert [clip.key for clip in plane.clips] == [f"clip-{n}" for n in range(count)]
    assert embed(features(count), clips(count)) == plane


def test_many_clips_go_by_pca(monkeypatch: pytest.MonkeyPatch) -> None:
    assert embedding.MOST_CLIPS == 2000
    assert embed(features(2001), clips(2001)).method == "PCA"


@pytest.mark.parametrize("count", [1, 40])
def test_the_features_of_a_silent_network_are_one_point(count: int) -> None:
    plane = embed(np.zeros((count, 8), np.float32), clips(count))
    assert plane.method == "PCA"
    assert {(clip.x, clip.y) for clip in plane.clips} == {(0.0, 0.0)}


def test_clips_of_one_kind_lie_together() -> None:
    apart = features(60) + 20 * (np.arange(60) % 2)[:, None]
    plane = np.array([(clip.x, clip.y) for clip in embed(apart, clips(60)).clips])
    centres = plane[::2].mean(0), plane[1::2].mean(0)
    nearest = [int(np.argmin([np.linalg.norm(p - c) for c in centres])) for p in plane]
    assert nearest == [0, 1] * 30


def test_principal_components_are_those_of_scikit_learn() -> None:
    values = features(20).astype(np.float64)
    ours, theirs = principal_components(values), PCA(2).fit_transform(values)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-9)
    assert principal_components(values[:, :1]).shape == (20, 2)


def scores(*answers: tuple[int, int, float]) -> Scores:
    """Return scores of clips: the class, the answer and the logit of the answer."""
    logits = torch.zeros(len(answers), 4)
    for place, (_, answer, logit) in enumerate(answers):
        logits[place, answer] = logit
    return Scores(logits, torch.tensor([label for label, *_ in answers]))


def test_chosen_clips_are_confident_right_ones_of_different_classes_and_wrong_ones() -> None:
    found = scores(
        (0, 0, 1.0), (0, 0, 3.0), (1, 1, 2.0), (2, 2, 9.0), (3, 0, 1.0), (3, 1, 5.0), (1, 2, 4.0)
    )
    assert choose_clips(found, most=4) == [3, 1, 5, 6]
    assert choose_clips(found, most=1) == [3]


def test_where_one_kind_is_missing_the_other_kind_fills_the_places() -> None:
    all_wrong = scores((0, 1, 1.0), (0, 2, 2.0), (1, 2, 3.0))
    assert choose_clips(all_wrong, most=4) == [2, 1, 0]
    all_right = scores((0, 0, 1.0), (1, 1, 2.0), (0, 0, 3.0))
    assert choose_clips(all_right, most=4) == [2, 1]


def test_of_equally_confident_clips_the_first_is_chosen() -> None:
    assert choose_clips(scores((0, 0, 1.0), (1, 1, 1.0), (2, 2, 1.0)), most=2) == [0, 1]
