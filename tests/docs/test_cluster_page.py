"""Runs the job scripts of docs/cluster.md with a Slurm that consists of a few shell scripts.

The fakes do what the manual of Slurm says of the programs: ``srun`` starts the tasks of a step and
ends with their highest exit code, ``--signal`` without ``B:`` and ``scancel --signal`` reach the
tasks alone, and ``scontrol requeue`` starts the script again.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from avsnn.pipeline.runs.metrics import read_metrics
from tests.conftest import PROJECT

BLOCKS = re.findall(r"```bash\n(.*?)```", (PROJECT / "docs" / "cluster.md").read_text(), re.DOTALL)
ONE_GPU, SHELL_GETS_THE_SIGNAL, SEVERAL_GPUS, STAGING = BLOCKS

SRUN = """#!/bin/bash
tasks=$SLURM_NTASKS
while [[ $1 == --* ]]; do
  [[ $1 == --ntasks=* ]] && tasks=${1#--ntasks=}
  shift
done
highest=0
for ((task = 0; task < tasks; task++)); do
  (
    echo "$BASHPID" >> tasks
    SLURM_PROCID=$task SLURM_LOCALID=$((task % 2)) exec "$@"
  ) &
done
for task in $(jobs -p); do
  wait "$task"
  code=$?
  ((code > highest)) && highest=$code
done
exit "$highest"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo "node-of-$3"; echo node-b; else echo "$@" >> asked; fi
"""
SCANCEL = """#!/bin/bash
echo "$@" >> asked
kill -TERM $(cat tasks)
"""
# A training that says how it was started, and obeys SIGTERM or ends.
FAKE_AVSNN = """#!/bin/bash
echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $MASTER_PORT $@" >> started
[ -e told-to-end ] || exit 0
trap 'exit 75' TERM
echo ready >&2
while :; do sleep 0.05; done
"""
# The real training, small enough for a test.
REAL_AVSNN = f"""#!/bin/bash
exec {sys.executable} -m avsnn "$@" --workers 0 --device cpu --set model.channels=16 \\
  --set epochs=3 --set batch_size=4 --set data.size=32
"""


class Slurm:
    """A folder in which the jobs run, and the programs that the jobs find on their path."""

    def __init__(self, folder: Path, avsnn: str, root: Path) -> None:
        self.folder, self.root = folder, root
        programs = {"srun": SRUN, "scontrol": SCONTROL, "scancel": SCANCEL, "avsnn": avsnn}
        for name, text in programs.items():
            (folder / "bin").mkdir(exist_ok=True)
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)

    def start(self, script: str, tasks: int = 1) -> subprocess.Popen[str]:
        """Start a script of the page, with the demo in place of CREMA-D."""
        script = script.replace("/shared/data", str(self.root)).replace("crema-d", "demo")
        script = script.replace("/shared/runs", str(self.folder))
        self.folder.joinpath("tasks").unlink(missing_ok=True)
        self.folder.joinpath("job.sh").write_text(script)
        facts = {"JOB_ID": "17", "NTASKS": str(tasks), "CPUS_PER_TASK": "1", "JOB_NODELIST": "a"}
        environment = {
            **os.environ,
            **{f"SLURM_{name}": value for name, value in facts.items()},
            "SLURM_JOB_NUM_NODES": "1",
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(PROJECT),
            "TMPDIR": str(self.folder),
        }
        return subprocess.Popen(
            ["bash", "job.sh"],
            cwd=self.folder,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def signal_tasks(self) -> None:
        """Do what ``--signal=TERM@120`` does."""
        for process in (self.folder / "tasks").read_text().split():
            os.kill(int(process), signal.SIGTERM)

    def asked(self) -> list[str]:
        """Return what the scripts asked Slurm for."""
        path = self.folder / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def started(self) -> list[str]:
        """Return the variables and words of every process of the fake training, sorted."""
        return sorted((self.folder / "started").read_text().splitlines())


def rest_of(job: subprocess.Popen[str]) -> str:
    """Return what a job says until its end; kill a job that does not end."""
    try:
        return job.communicate(timeout=120)[1]
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        raise


def wait_for(job: subprocess.Popen[str], words: str, times: int = 1) -> None:
    """Read what a job says until some words were said several times."""
    assert job.stderr is not None
    for line in job.stderr:
        times -= words in line
        if not times:
            return
    raise AssertionError(f"the job never said {words!r}")


def test_a_training_that_slurm_ends_is_put_back_into_the_queue_and_finished(
    small_demo: Path, tmp_path: Path
) -> None:
    slurm = Slurm(tmp_path, REAL_AVSNN, small_demo)
    job = slurm.start(ONE_GPU)
    wait_for(job, "epoch 1/3")
    slurm.signal_tasks()
    said = rest_of(job)
    assert job.returncode == 75, said
    assert "told to end; saved after" in said
    assert slurm.asked() == ["requeue 17"]
    # The next start may run on another node, to whose disk the job copies the data first.
    copies = ONE_GPU.replace("srun", f"{STAGING}\nsrun", 1)
    again = slurm.start(copies.replace("--root /shared/data", '--root "$LOCAL_DATA"'))
    said = rest_of(again)
    assert again.returncode == 0, said
    assert "epoch 3/3" in said
    assert len(read_metrics(tmp_path / "demo")) == 3
    assert slurm.asked() == ["requeue 17"]
    copied = {path.name for path in (tmp_path / "avsnn-data" / "demo").iterdir()}
    assert copied - {".lock"} == {"prepared.json", "index", "cache"}


def test_every_gpu_has_a_process_that_knows_the_others(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path, FAKE_AVSNN, tmp_path)
    job = slurm.start(SEVERAL_GPUS, tasks=2)
    said = rest_of(job)
    assert (job.returncode, slurm.asked()) == (0, []), said
    words = f"train demo --root {tmp_path} --run {tmp_path}/demo --workers 4 --resume"
    assert slurm.started() == [f"{n} {n} 2 node-of-a 20017 {words}" for n in (0, 1)]


@pytest.mark.parametrize("script", ["tasks", "shell"])
def test_sigterm_reaches_the_training_and_exit_code_75_reaches_the_script(
    tmp_path: Path, script: str
) -> None:
    slurm = Slurm(tmp_path, FAKE_AVSNN, tmp_path)
    (tmp_path / "told-to-end").touch()
    if script == "tasks":
        job = slurm.start(SEVERAL_GPUS, tasks=2)
        wait_for(job, "ready", times=2)
        slurm.signal_tasks()
    else:
        line = next(x for x in ONE_GPU.splitlines() if x.startswith("srun"))
        job = slurm.start(ONE_GPU.replace(f"{line}\n", SHELL_GETS_THE_SIGNAL))
        wait_for(job, "ready")
        job.send_signal(signal.SIGTERM)
    said = rest_of(job)
    assert job.returncode == 75, said
    assert slurm.asked()[-1] == "requeue 17"


def test_the_script_for_clusters_that_signal_the_shell_ends_without_a_signal_too(
    tmp_path: Path,
) -> None:
    slurm = Slurm(tmp_path, FAKE_AVSNN, tmp_path)
    line = next(x for x in ONE_GPU.splitlines() if x.startswith("srun"))
    job = slurm.start(ONE_GPU.replace(f"{line}\n", SHELL_GETS_THE_SIGNAL))
    said = rest_of(job)
    assert (job.returncode, slurm.asked()) == (0, []), said
