"""Draws confusion matrices of few and of many classes."""

import subprocess
import sys

import pytest

from avsnn.pipeline.evaluation.calibration import Calibration
from avsnn.pipeline.evaluation.figures import draw_confusion
from avsnn.pipeline.evaluation.intervals import Share
from avsnn.pipeline.evaluation.measures import ClassReport, Evaluation, Majority
from avsnn.pipeline.pictures import png


def evaluation(names: list[str]) -> Evaluation:
    count = len(names)
    return Evaluation(
        fingerprint="f",
        run="r",
        dataset="d",
        method="m",
        split="s",
        part="test",
        epoch=1,
        selection="val",
        clips=2 * count,
        loss=1.0,
        top1=0.5,
        top1_interval=Share(value=0.5, low=0.4, high=0.6),
        top5=None,
        top5_interval=None,
        resampled="clips",
        resampled_units=2 * count,
        chance=1 / count,
        majority=Majority(name=names[0], share=1 / count),
        calibration=Calibration(ece=0, bins=[]),
        caveats=[],
        clips_sha256="",
        seed=0,
        classes=[ClassReport(name=n, precision=1, recall=1, f1=1, clips=2) for n in names],
        confusion=[[int(y == x) * 2 for x in range(count)] for y in range(count)],
    )


@pytest.mark.parametrize("count", [2, 6, 30])
def test_few_classes_have_a_number_in_every_cell_and_a_tick_each(count: int) -> None:
    axes = draw_confusion(evaluation([f"class {n}" for n in range(count)])).axes[0]
    assert len(axes.texts) == count**2
    assert len(axes.get_xticks()) == len(axes.get_yticks()) == count


@pytest.mark.parametrize("count", [31, 100, 310, 1000])
def test_many_classes_have_no_numbers_and_few_ticks_in_a_picture_of_limited_size(
    count: int,
) -> None:
    figure = draw_confusion(evaluation([f"class {n}" for n in range(count)]))
    axes = figure.axes[0]
    assert not axes.texts
    assert 10 <= len(axes.get_xticks()) <= 31
    assert [label.get_text() for label in axes.get_yticklabels()][:1] == ["class 0"]
    assert max(figure.get_size_inches()) <= 20


def test_310_classes_take_little_memory() -> None:
    program = (
        "import resource\n"
        "from tests.pipeline.evaluation.test_figures import *\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "png(draw_confusion(evaluation(['a', 'b'])))\n"
        "before = peak()\n"
        "png(draw_confusion(evaluation([f'class {n}' for n in range(310)])))\n"
        "print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300_000


def test_names_that_are_no_formula_or_very_long_or_not_in_the_font_are_drawn(
    recwarn: pytest.WarningsRecorder,
) -> None:
    assert png(draw_confusion(evaluation([r"$\frac{", "a" * 5000, "犬"])))
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
