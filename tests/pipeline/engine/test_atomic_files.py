import os
import platform
import re
from pathlib import Path

from avsnn.pipeline.engine.atomic_files import remove_partial_files_of_dead_writers
from tests.conftest import remains_of_a_dead_writer


def test_only_unfinished_files_of_dead_writers_of_this_machine_are_removed(tmp_path: Path) -> None:
    left = remains_of_a_dead_writer(tmp_path, "test.json")
    kept = {
        left.with_name(re.sub(r"-\d+-", f"-{os.getpid()}-", left.name)),
        left.with_name(left.name.replace(platform.node(), "another-machine")),
        left.with_name(left.name.replace(platform.node(), f"another-{platform.node()}")),
        left.with_name("test.json"),
    }
    for path in kept:
        path.touch()
    remove_partial_files_of_dead_writers(tmp_path)
    assert set(tmp_path.iterdir()) == kept
