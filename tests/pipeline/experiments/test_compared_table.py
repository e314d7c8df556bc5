"""Tables whose rows are compared with one of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t, ttest_rel

from avsnn.errors import UserError
from avsnn.pipeline.experiments.compared_table import ComparedTable, compare_rows, paired_t_test
from avsnn.pipeline.experiments.experiment import (
    Changes,
    Experiment,
    NoisyAccuracy,
    Plan,
    RunState,
)
from avsnn.pipeline.experiments.read_table import choose_conditions, choose_folds, load_table
from avsnn.pipeline.experiments.table_text import to_markdown
from avsnn.pipeline.runs.config import make_config
from avsnn.pipeline.runs.train_settings import TrainSettings

TABLE = """\
title: Two ways
against: plain
noise: [20, 0]
folds: [one, two]
conditions:
  - few: {data.clips_per_class: 5}
rows:
  - plain: {preset: add}
  - other: {preset: audio}
"""
ACCURACIES = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=30
).filter(lambda pairs: len({round(a - b, 3) for a, b in pairs}) > 1)


@given(ACCURACIES)
def test_the_p_value_is_that_of_the_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    one, other = zip(*pairs, strict=True)
    found = paired_t_test([a - b for a, b in pairs])
    assert found == pytest.approx(ttest_rel(one, other).pvalue, abs=1e-9)


def test_equal_differences_and_a_single_difference_prove_nothing() -> None:
    assert paired_t_test([2.0, 2.0]) is None
    assert paired_t_test([0.0, 0.0]) is None
    assert paired_t_test([2.0]) is None


def compared(
    root: Path, folder: Path, top1: dict[tuple[str, str, int], float | None]
) -> ComparedTable:
    """Return the table above, with the accuracy of each row, fold and seed."""
    (folder / "own.yaml").write_text(TABLE)
    table = load_table(str(folder / "own.yaml"))
    config = make_config("demo", TrainSettings(), root=root)
    rows = {row.name: row for row in table.rows}
    experiments, states = [], {}
    for number, ((name, fold, seed), value) in enumerate(top1.items()):
        place = Path(str(number))
        experiments.append(
            Experiment(rows[name], seed, config, place, (), "few", fold, table.noise)
        )
        states[place] = RunState(1)
        if value is not None:
            noisy = {20.0: NoisyAccuracy(value / 2, False), 0.0: NoisyAccuracy(10.0, True)}
            states[place] = RunState(1, value, 10.0, False, noisy, energy_uj=value / 10)
    plan = Plan(table, Changes(), experiments, Path())
    return compare_rows(plan, states, against="plain")


def test_a_row_is_compared_over_the_pairs_of_fold_and_seed_that_both_rows_have(
    small_demo: Path, tmp_path: Path
) -> None:
    found = compared(
        small_demo,
        tmp_path,
        {
            ("plain", "one", 1): 50.0,
            ("plain", "one", 2): 60.0,
            ("plain", "two", 1): 70.0,
            ("plain", "two", 2): None,
            ("other", "one", 1): 54.0,
            ("other", "one", 2): 68.0,
            ("other", "two", 1): None,
            ("other", "two", 2): 90.0,
        },
    )
    plain, other = found.blocks[0].lines
    assert plain.figures["clean"].average is not None
    assert plain.figures["clean"].average.mean == 60.0
    # The interval of 50, 60 and 70: the standard deviation is 10.
    half = t.ppf(0.975, 2) * 10 / 3**0.5
    assert plain.figures["clean"].average.half == pytest.approx(half)
    assert plain.figures["clean"].difference is None
    difference = other.figures["clean"].difference
    assert difference is not None
    assert (difference.mean, difference.pairs) == (6.0, 2)
    assert difference.p == pytest.approx(ttest_rel([54.0, 68.0], [50.0, 60.0]).pvalue)
    assert other.figures["20 dB"].top1 == {"one 1": 27.0, "one 2": 34.0, "two 2": 45.0}
    assert other.figures["0 dB"].difference is not None
    assert other.figures["0 dB"].difference.p is None
    assert other.energy_uj == pytest.approx((5.4 + 6.8 + 9.0) / 3)
    page = to_markdown(found.text())
    assert "| plain | 60.0 ± 24.8 | 30.0 ± 12.4 | 10.0 † |" in page
    assert "† no better than chance: the 95 % interval of every run is not above" in page
    assert "2 runs of 8 to do." in page
    assert page.count("## few") == 1


def test_a_difference_is_marked_where_its_interval_leaves_out_zero(
    small_demo: Path, tmp_path: Path
) -> None:
    values = {("plain", "one", seed): 50.0 + seed for seed in range(4)}
    values |= {("other", "one", seed): 40.0 + 1.1 * seed for seed in range(4)}
    (section,) = compared(small_demo, tmp_path, values).text().sections
    assert section.rows[2][1].endswith("▼!")
    values |= {("other", "one", seed): 50.0 + (-1) ** seed for seed in range(4)}
    (section,) = compared(small_demo, tmp_path, values).text().sections
    assert section.rows[2][1][-1].isdecimal()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("against: plain\n", "", "'noise' needs 'against'|'conditions' needs 'against'"),
        ("against: plain", "against: plan", "no row is called 'plan'.*did you mean plain"),
        ("against: plain", "against: 3", "no row is called 3 .*there are: plain, other"),
        ("[20, 0]", "[20, 3]", "levels in dB: 30, 25, 20"),
        ("[20, 0]", "20", "must be a list of levels in dB"),
        ("noise:", "seeds: [1, 1]\nnoise:", "whole numbers from 0, each once"),
        ("[one, two]", "one", "'folds' is 'one', and must be a list"),
        ("[one, two]", "[one, one]", "'folds' names one of its values twice"),
        ("{data.clips_per_class: 5}", "5", "the condition 'few' has no settings"),
        ("conditions:\n  - ", "conditions:\n  ", "'conditions' is .*must be a list"),
    ],
)
def test_a_mistake_in_a_table_with_comparisons_is_told_in_one_sentence(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    assert old in TABLE
    (tmp_path / "own.yaml").write_text(TABLE.replace(old, new))
    with pytest.raises(UserError, match=sentence):
        load_table(str(tmp_path / "own.yaml"))


def test_conditions_and_folds_are_chosen_by_name(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(TABLE)
    table = load_table(str(tmp_path / "own.yaml"))
    assert choose_folds(table, "two, one") == ["one", "two"]
    assert [one.name for one in choose_conditions(table, None)] == ["few"]
    with pytest.raises(UserError, match=r"--folds: the table own has no 'tow'; did you mean two\?"):
        choose_folds(table, "tow")
    with pytest.raises(UserError, match="--conditions: the table methods has no 'few'; it has non"):
        choose_conditions(load_table("methods"), "few")


def test_a_difference_that_rounds_to_zero_has_no_minus(small_demo: Path, tmp_path: Path) -> None:
    values = {("plain", "one", seed): 50.0 for seed in range(2)}
    values |= {("other", "one", seed): 49.98 + 0.01 * seed for seed in range(2)}
    (section,) = compared(small_demo, tmp_path, values).text().sections
    assert section.rows[2][1].startswith("+0.0 ± ")


def test_equal_figures_have_no_interval(small_demo: Path, tmp_path: Path) -> None:
    values = {("plain", "one", 1): 50.0, ("plain", "one", 2): 50.0}
    values |= {("other", "one", 1): 60.0, ("other", "one", 2): 60.0}
    (section,) = compared(small_demo, tmp_path, values).text().sections
    assert [row[1] for row in section.rows] == ["50.0", "60.0", "+10.0"]


def test_the_same_number_of_clips_more_has_no_interval(small_demo: Path, tmp_path: Path) -> None:
    clips = {1: 12, 2: 12, 3: 11}
    values = {("plain", "one", seed): 100 * (right / 18) for seed, right in clips.items()}
    values |= {("other", "one", seed): 100 * ((right + 3) / 18) for seed, right in clips.items()}
    table = compared(small_demo, tmp_path, values)
    assert table.text().sections[0].rows[2][1] == "+16.7"


def test_a_table_without_the_row_to_compare_with_says_so_and_explains_no_marks(
    small_demo: Path, tmp_path: Path
) -> None:
    text = compared(small_demo, tmp_path, {("other", "one", 1): 50.0}).text()
    assert text.notes[0].startswith("The row plain was not chosen, so nothing is compared with it")
    assert "▲" not in to_markdown(text)
    assert "Below" not in text.caption
