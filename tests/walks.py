"""Edits a data set at random, prepares with kills in between, and compares with a fresh prepare.

``python -m tests.walks --walks 20 --seed 1`` is the long version of tests/e2e/test_walks.py. A walk
is a sequence of steps. A step edits the table, the splits, the classes or a file, and takes other
settings or another limit. Then ``avsnn prepare`` is killed at some moment, or runs to its end. When
a prepare has ended, its index must hold what the table says, its files must equal the files of a
prepare that starts from nothing, ``avsnn verify`` must find no damage, and nothing may be left of
earlier clips or of killed prepares. Then ``train`` and ``evaluate`` of a run that may be older than
the edits must refuse in one sentence, or give the numbers of a new run on new data.
"""

import argparse
import json
import os
import re
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from tests.conftest import ALONE
from tests.own_dataset import EDITS, OwnDataset, current_files, prepared_index
from tests.warm import Warm

SETTINGS = (
    (),
    ("--limit", "20"),
    ("--limit", "33"),
    ("--set", "audio.hop=200"),
    ("--set", "audio.size=64"),
    ("--set", "extract.clips_per_shard=8"),
    ("--set", "extract.clips_per_shard=5"),
    ("--set", "extract.shard_bytes=400000"),
    ("--set", "frames.shorter_side=64"),
)

TRAIN = ["train", "own", "--preset", "demo", "--device", "cpu", "--workers", "0"]
TRAIN += ["--set", "model.channels=16", "--set", "data.size=32", "--set", "epochs=1"]
TRAIN += ["--set", "batch_size=8", "--set", "selection=last"]

REPRODUCE = ["reproduce", "attention", "--dataset", "own", "--device", "cpu", "--seeds", "1"]
REPRODUCE += TRAIN[TRAIN.index("--set") :]


def append_clips(own: OwnDataset, number: int) -> None:
    """Append one clip or several, at the end or in the middle of the table."""
    count = 1 + number % 3
    at = number % (len(own.rows) + 1)
    own.rows[at:at] = own.reserve[:count]
    own.reserve = own.reserve[count:]


def remove_clips(own: OwnDataset, number: int) -> None:
    for _ in range(min(1 + number % 3, len(own.rows) - 12)):
        own.reserve.append(own.rows.pop(number % len(own.rows)))


def relabel(own: OwnDataset, number: int) -> None:
    row = own.rows[number % len(own.rows)]
    row["label"] = str((int(row["label"]) + 1) % 6)


def regroup(own: OwnDataset, number: int) -> None:
    own.rows[number % len(own.rows)]["group"] = f"s{number % 4}"


def repart(own: OwnDataset, number: int) -> None:
    parts = ("train", "val", "test")
    row = own.rows[number % len(own.rows)]
    row["split"] = parts[(parts.index(row["split"]) + 1) % 3]


def reorder(own: OwnDataset, number: int) -> None:
    own.rows = [*own.rows[number % len(own.rows) :], *own.rows[: number % len(own.rows)]]


def correct_a_clip(own: OwnDataset, number: int) -> None:
    _take_other_files(own, number, "audio_path", "visual_path")


def correct_a_sound(own: OwnDataset, number: int) -> None:
    """Take a sound that may be too long for the video; such a clip cannot be used."""
    _take_other_files(own, number, "audio_path")


def _take_other_files(own: OwnDataset, number: int, *columns: str) -> None:
    assert own.source is not None
    rows = [*own.rows, *own.reserve]
    here, other = rows[number % len(rows)], rows[(number + 1) % len(rows)]
    for column in columns:
        shutil.copyfile(own.source / other[column], own.source / here[column])


def correct_facts(own: OwnDataset, number: int) -> None:
    """Change the splits, the classes or the default split."""
    EDITS[-1 - number % 3](own)


def change_nothing(own: OwnDataset, number: int) -> None:
    """Leave the data set as it is; the settings of the step may differ."""


WALK_EDITS: tuple[Callable[[OwnDataset, int], None], ...] = (
    change_nothing,
    append_clips,
    remove_clips,
    relabel,
    regroup,
    repart,
    reorder,
    correct_a_clip,
    correct_a_sound,
    correct_facts,
)


@dataclass(frozen=True)
class Kill:
    """The moment at which SIGKILL ends a prepare.

    Attributes:
        lines: number of lines that the prepare has printed.
        ms: how long the prepare has run on since then, in ms, if it prints nothing more.
    """

    lines: int
    ms: int


@dataclass(frozen=True)
class Step:
    """An edit, and the prepare after the edit.

    Attributes:
        edit: name of the edit.
        number: says which clip is edited.
        words: the settings of the prepare.
        kill: when the prepare is killed; None lets it run to its end.
    """

    edit: str
    number: int
    words: tuple[str, ...]
    kill: Kill | None = None


def steps(*, least: int, most: int) -> st.SearchStrategy[list[Step]]:
    """Return a strategy of walks."""
    # A prepare of the data set prints about ten lines.
    kills = st.builds(Kill, st.integers(0, 9), st.integers(0, 200))
    step = st.builds(
        Step,
        st.sampled_from([edit.__name__ for edit in WALK_EDITS]),
        st.integers(0, 100),
        st.sampled_from(SETTINGS),
        st.none() | kills,
    )
    return st.lists(step, min_size=least, max_size=most)


class Walk:
    """A data set that is edited and prepared, and what came of it.

    Args:
        warm: runs the commands.
        folder: an empty folder.
        source: the files of all clips, also of clips that an edit appends.
    """

    def __init__(self, warm: Warm, folder: Path, source: Path) -> None:
        self.warm = warm
        self.folder = folder
        datasets = folder / "datasets"
        datasets.mkdir(parents=True)
        # The folder of the walk before may be gone.
        os.environ.pop(USER_FOLDER_VARIABLE, None)
        self.own = OwnDataset(datasets)
        self.own.source = folder / "source"
        shutil.copytree(source, self.own.source)
        os.environ[USER_FOLDER_VARIABLE] = str(datasets)
        self.counts: Counter[str] = Counter()

    def take(self, step: Step, *, about: object) -> bool:
        """Edit and prepare; return whether the prepare ran to its end."""
        (edit,) = (edit for edit in WALK_EDITS if edit.__name__ == step.edit)
        edit(self.own, step.number)
        self.own.write()
        words = self._words(step)
        if step.kill is None:
            done = self.warm.run(words, self.folder)
            assert done.returncode == 0, f"{about}: {done.stderr}"
            return True
        process = self.warm.start(words, self.folder)
        for _ in range(step.kill.lines):
            process.stderr.readline()
        process.ended(within=step.kill.ms / 1000)
        os.kill(process.pid, signal.SIGKILL)
        code = process.wait()
        assert code in (0, -signal.SIGKILL), f"{about}: exit code {code}"
        self.counts["killed"] += code != 0
        return code == 0

    def _words(self, step: Step) -> list[str]:
        source = ["--source", str(self.own.source), "--max-failures", "1"]
        return ["prepare", "own", *source, *ALONE, *step.words]

    def compare(self, step: Step, *, about: object) -> Path:
        """Compare what a prepare left with a fresh prepare; return the root of the fresh one."""
        fresh = self.folder / f"fresh-{self.counts['compared']}"
        done = self.warm.run([*self._words(step), "--root", str(fresh)], self.folder)
        assert done.returncode == 0, f"{about}: {done.stderr}"
        ours, theirs = self.folder / "data" / "own", fresh / "own"
        index = prepared_index(ours)
        table = {row["key"]: (int(row["label"]), row["group"]) for row in self.own.rows}
        assert {key: (row[0], row[2]) for key, row in index.items()}.items() <= table.items(), about
        assert "--limit" in step.words or len(index) == len(table), about
        assert index == prepared_index(theirs), about
        assert current_files(ours) == current_files(theirs), about
        verified = self.warm.run(["verify", "own"], self.folder)
        assert verified.returncode == 0, f"{about}: {verified.stdout}"
        again = self.warm.run(self._words(step), self.folder)
        assert "nothing to do" in again.stdout, about
        assert_no_earlier_generation(ours)
        partial = ours / "state" / "partial"
        assert not partial.exists() or not list(partial.iterdir()), about
        assert not list(ours.rglob("*.partial")), about
        self.counts["compared"] += 1
        return fresh


def make_source(warm: Warm, folder: Path) -> Path:
    """Return a folder with the files of all clips of `OwnDataset`, also of the reserve."""
    datasets = folder / "datasets"
    datasets.mkdir(parents=True)
    own = OwnDataset(datasets)
    own.rows += own.reserve
    own.write()
    os.environ[USER_FOLDER_VARIABLE] = str(datasets)
    made = warm.run(["prepare", "own", "--root", "made", *ALONE], folder)
    assert made.returncode == 0, made.stderr
    return folder / "made" / "own" / "raw"


def walk(
    warm: Warm,
    folder: Path,
    source: Path,
    taken: Sequence[Step],
    *,
    trains: bool = False,
    reproduces: bool = False,
) -> Counter[str]:
    """Take the steps, and compare at the end; with ``trains``, compare after every whole prepare.

    With ``reproduces``, a table is reproduced after every whole prepare, too.

    Returns:
        the number of prepares that were killed (``killed``), of prepares that ended and were
        compared with a fresh one (``compared``), of runs that were refused (``refused``) or gave
        the numbers of a new run (``same numbers``), and of compared tables (``tables``).

    Raises:
        AssertionError: a prepare failed without a kill, or left other files than a fresh one.
    """
    here = Walk(warm, folder, source)
    last = Step("change_nothing", 0, taken[-1].words)
    for number, step in enumerate([*taken, last]):
        about = taken[: number + 1]
        if not here.take(step, about=about) or not (trains or step is last):
            continue
        fresh = here.compare(step, about=about)
        if trains:
            here.counts[check_numbers(warm, folder, fresh, str(about))] += 1
            if reproduces:
                here.counts["tables"] += check_table(warm, folder, fresh, str(about))
            if number % 2:
                shutil.rmtree(folder / "run", ignore_errors=True)
        shutil.rmtree(fresh)
    return here.counts


def assert_no_earlier_generation(folder: Path) -> None:
    """Check that the whole generation has replaced all others of its settings and its limit."""
    prepared = json.loads((folder / "prepared.json").read_text())
    for kind in ("index", "shards", "frames", "audio"):
        present = folder / prepared[kind]
        settings_and_limit, _, rest = present.name.rpartition("-")
        suffix = rest[8:]
        same = list(present.parent.glob(f"{settings_and_limit}-????????{suffix}"))
        assert same == [present], same


def check_numbers(warm: Warm, folder: Path, fresh: Path, about: str) -> str:
    """Train and evaluate an older run, and compare with a new run on new data.

    Returns:
        ``refused`` or ``same numbers``.
    """
    outcomes = []
    for root, run in (("data", folder / "run"), (str(fresh), fresh / "run")):
        trained = warm.run([*TRAIN, "--root", root, "--run", str(run)], folder)
        done = trained
        if trained.returncode == 0:
            done = warm.run(["evaluate", str(run), "--root", root, "--split", "train"], folder)
        if done.returncode:
            assert done.returncode == 2, f"{about}: {done.stderr}"
            assert len(done.stderr.strip().splitlines()) == 1, f"{about}: {done.stderr}"
        outcomes.append(numbers_of(run) if done.returncode == 0 else None)
    ours, theirs = outcomes
    if ours is None:
        # Data on which nothing can be trained refuse a new run too; an older run is no stale one.
        return "refused"
    assert ours == theirs, about
    return "same numbers"


def check_table(warm: Warm, folder: Path, fresh: Path, about: str) -> bool:
    """Reproduce a table beside the runs of earlier steps and beside no runs, and compare.

    Returns:
        whether a table was made; data on which nothing can be trained make none.
    """
    tables = []
    for root, runs in (("data", folder / "runs"), (str(fresh), fresh / "runs")):
        words = [*REPRODUCE, "--root", root, "--runs", str(runs)]
        done = warm.run(words, folder)
        assert done.returncode in (0, 1, 2), f"{about}: {done.stderr}"
        assert "Traceback" not in done.stderr, f"{about}: {done.stderr}"
        found = list((runs / "tables").glob("*.json")) if done.returncode == 0 else []
        tables.append([table_numbers(path) for path in found])
    assert tables[0] == tables[1], about
    return bool(tables[0])


def table_numbers(path: Path) -> str:
    """Return what a table says, without the names of folders."""
    return re.sub(r'"[^"]*runs/[^"]*"', '""', path.read_text())


def numbers_of(run: Path) -> list[dict[str, Any]]:
    """Return the curve of a run and the numbers of its report, without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    report = json.loads((run / "report" / "train.json").read_text())
    kept = [{key: line[key] for key in line if "second" not in key} for line in lines]
    return [*kept, {key: report[key] for key in ("loss", "top1", "top5", "clips")}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walks", type=int, default=20)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", action="store_true", help="train, evaluate and reproduce, too")
    args = parser.parse_args()
    counts: Counter[str] = Counter()
    os.environ.pop(USER_FOLDER_VARIABLE, None)
    warm = Warm()
    with tempfile.TemporaryDirectory() as name:
        source = make_source(warm, Path(name) / "made")

        @seed(args.seed)
        @settings(
            max_examples=args.walks,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(steps(least=args.steps // 2, most=args.steps))
        def take(taken: list[Step]) -> None:
            with tempfile.TemporaryDirectory(dir=name) as folder:
                train = {"trains": args.train, "reproduces": args.train}
                counts.update(walk(warm, Path(folder) / "walk", source, taken, **train))

        take()
    warm.close()
    print(
        f"seed {args.seed}, {args.walks} walks: {counts['killed']} prepares killed, "
        f"{counts['compared']} prepares equal to a fresh one; then {counts['refused']} runs were "
        f"refused, and {counts['same numbers']} gave the numbers of a new run; "
        f"{counts['tables']} tables equal the tables of new runs"
    )


if __name__ == "__main__":
    main()
