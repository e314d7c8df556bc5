"""Every measure equals what an independent library computes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import top_k_accuracy_score
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.multitest import multipletests
from torchmetrics.classification import MulticlassCalibrationError

from avsnn.pipeline.evaluation.answers import Answer, answers_from_csv, answers_to_csv
from avsnn.pipeline.evaluation.calibration import BINS, calibrate
from avsnn.pipeline.evaluation.comparison import mcnemar, with_holm
from avsnn.pipeline.evaluation.intervals import Resampling
from avsnn.pipeline.inference.predict import Scores


def scores(*, clips: int = 400, classes: int = 7, seed: int = 0) -> Scores:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (clips,), generator=draw)
    logits = torch.randn(clips, classes, generator=draw)
    logits[torch.arange(clips), labels] += 1.5
    return Scores(logits, labels)


def test_top_1_and_top_5_are_those_of_scikit_learn():
    found = scores()
    for k in (1, 5):
        wanted = top_k_accuracy_score(found.labels.numpy(), found.logits.numpy(), k=k)
        assert found.top(k) == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(3))
def test_the_calibration_error_is_that_of_torchmetrics(seed):
    found = scores(seed=seed)
    ours = calibrate(found.probabilities.max(1), found.is_right)
    theirs = MulticlassCalibrationError(num_classes=7, n_bins=BINS, norm="l1")
    assert ours.ece == pytest.approx(float(theirs(found.logits, found.labels)), abs=1e-6)
    assert sum(one.clips for one in ours.bins) == 400


def test_a_confidence_of_1_belongs_to_the_last_bin_and_0_to_the_first():
    found = calibrate(np.array([0.0, 1.0]), np.array([False, True]))
    assert (found.bins[0].clips, found.bins[-1].clips) == (1, 1)
    assert found.ece == 0


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 9), (25, 11), (40, 41)])
def test_mcnemars_test_is_that_of_statsmodels(first, second):
    wanted = mcnemar_of_statsmodels([[50, first], [second, 7]], exact=True).pvalue
    assert mcnemar(first, second) == pytest.approx(wanted)


@pytest.mark.parametrize("count", [1, 2, 3, 12, 45])
def test_the_correction_for_many_pairs_is_that_of_statsmodels(count):
    values = list(np.random.default_rng(count).random(count) ** 4)
    # Two tests may have the same p-value.
    values[-1] = values[0]
    assert with_holm(values) == pytest.approx(multipletests(values, method="holm")[1])


def test_an_interval_over_clips_is_that_of_scipys_bootstrap():
    hits = np.arange(150) < 117
    found = Resampling([str(n) for n in range(150)]).share(hits)
    wanted = stats.bootstrap(
        (hits,), np.mean, method="percentile", n_resamples=20_000, random_state=1
    ).confidence_interval
    assert found.value == pytest.approx(117 / 150)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.01)


def test_an_interval_over_groups_is_wider_if_the_clips_of_a_group_agree():
    groups = [f"speaker {n // 10}" for n in range(300)]
    hits = np.repeat(np.arange(30) % 3 > 0, 10)
    of_groups, of_clips = Resampling(groups), Resampling(["all"] * 300)
    assert (of_groups.unit, of_groups.units) == ("groups", 30)
    assert (of_clips.unit, of_clips.units) == ("clips", 300)
    generator = np.random.default_rng(1)
    drawn = hits.reshape(30, 10)[generator.integers(30, size=(20_000, 30))].mean((1, 2))
    found = of_groups.share(hits)
    wanted = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(tuple(wanted), abs=0.015)
    narrow = of_clips.share(hits)
    assert found.high - found.low > 2 * (narrow.high - narrow.low)


def test_groups_of_different_sizes_count_by_their_clips():
    groups = ["large"] * 90 + ["small"] * 10
    found = Resampling(groups).share(np.arange(100) < 90)
    # A sample of the small group alone has no hit, a sample of the large group alone only hits.
    assert (found.value, found.low, found.high) == (0.9, 0, 1)


@pytest.mark.parametrize("hit", [True, False])
def test_an_interval_without_a_single_mistake_is_the_exact_one(hit):
    found = Resampling([str(n) for n in range(120)]).share(np.full(120, hit))
    exact = stats.binomtest(120 * hit, 120).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_the_same_interval_comes_twice():
    hits = np.arange(60) % 7 > 1
    groups = [str(n // 4) for n in range(60)]
    assert Resampling(groups).share(hits) == Resampling(groups).share(hits)


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)


@given(st.lists(st.builds(Answer, words, words, words, words, st.floats(0, 1), st.floats(0, 1))))
def test_answers_come_back_from_their_file_as_they_were(answers):
    assert answers_from_csv(answers_to_csv(answers)) == answers


def test_a_file_of_other_columns_is_no_file_of_answers():
    with pytest.raises(ValueError, match="columns"):
        answers_from_csv(b"key,answer\na,b\n")
