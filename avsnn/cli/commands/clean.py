"""The command `clean`."""

from pathlib import Path

from avsnn.cli.options import Dataset, Datasets, Root, Yes
from avsnn.errors import UserError


def clean_command(
    dataset: Dataset, root: Root = Path("data"), yes: Yes = False, datasets: Datasets = None
) -> None:
    """Remove shards, caches and scratch files that the last prepare does not need.

    clean lists the folders, with their sizes and the reason, and asks before it removes anything.
    What prepared.json names, the published files, what a training reads at this moment, and files
    that avsnn did not write always stay. If nobody can be asked, because the command is in a script
    and --yes is missing, clean removes nothing, and the exit code is 2.
    """
    from avsnn.cli.screen.console import can_ask, confirm, format_bytes, out
    from avsnn.cli.screen.prepare import print_clean_plan
    from avsnn.pipeline.prepare.clean import clean, plan_clean

    plan = plan_clean(dataset, root=root)
    print_clean_plan(dataset, plan)
    if not plan.unneeded:
        return
    if not yes and not can_ask():
        raise UserError(
            "nothing was removed, because nobody can be asked here; give --yes to remove this."
        )
    if not yes and not confirm("Remove this?"):
        out.print("Nothing was removed.")
        return
    freed = plan.bytes
    clean(dataset, plan, root=root)
    out.print(f"{dataset}: removed; the disk has {format_bytes(freed)} more.")
