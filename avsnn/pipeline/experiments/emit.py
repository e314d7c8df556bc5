"""The runs that a table lacks, as commands of a shell or as a job array for Slurm."""

import re
import shlex
from collections.abc import Mapping
from typing import Literal

from avsnn.datasets_manifest.catalogue import USER_FOLDER_VARIABLE
from avsnn.pipeline.experiments.experiment import HowToRun, Plan

# 75 is the exit code of a command that has saved its work at SIGTERM. Slurm sends SIGTERM to what
# `srun` starts, and not to the script itself.
SCRIPT = """\
#!/bin/bash
# Add what your cluster asks for, such as --partition, --account and --gpus-per-task=1.
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --output={name}-%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
# Two minutes before the end of its time, a training gets SIGTERM and saves itself.
#SBATCH --signal=TERM@120

{exports}
case "$SLURM_ARRAY_TASK_ID" in
{cells}
  *)
    echo "this script has no run '$SLURM_ARRAY_TASK_ID'" >&2
    exit 2 ;;
esac

srun "${{train[@]}}" && srun "${{evaluate[@]}}"
code=$?
if [ "$code" -eq 75 ]; then
  # The training is saved, and goes on when the job runs again.
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
"""

CELL = """\
  {number})  # {name}
    train=({train})
    evaluate=({evaluate}) ;;"""


def emit(
    form: Literal["commands", "slurm"],
    plan: Plan,
    how: HowToRun,
    environment: Mapping[str, str],
) -> str:
    """Return the commands that do the missing runs of a table; an empty text if none is missing.

    Args:
        form: ``commands`` returns one line of a shell for each run, ``slurm`` a script for
            ``sbatch``: an array with one job for each run.
        plan: the table.
        how: how the runs are carried out.
        environment: the environment of this command, which may name a folder of data sets.
    """
    folder = environment.get(USER_FOLDER_VARIABLE)
    variables = {USER_FOLDER_VARIABLE: shlex.quote(folder)} if folder else {}
    missing = plan.missing(plan.states())
    pairs = [
        (
            shlex.join(["avsnn", *experiment.train_words(how)]),
            shlex.join(["avsnn", *experiment.evaluate_words(how)]),
        )
        for experiment in missing
    ]
    if form == "commands":
        before = "".join(f"{key}={value} " for key, value in variables.items())
        return "".join(f"{before}{train} && {before}{evaluate}\n" for train, evaluate in pairs)
    if not pairs:
        return ""
    cores = '"${SLURM_CPUS_PER_TASK:-1}"'
    variables |= {"OMP_NUM_THREADS": cores, "SRUN_CPUS_PER_TASK": cores}
    return SCRIPT.format(
        name="avsnn-" + re.sub(r"[^\w-]", "-", plan.table.name),
        last=len(pairs) - 1,
        exports="".join(f"export {key}={value}\n" for key, value in variables.items()),
        cells="\n".join(
            CELL.format(number=number, name=experiment.name, train=train, evaluate=evaluate)
            for number, (experiment, (train, evaluate)) in enumerate(
                zip(missing, pairs, strict=True)
            )
        ),
    )
